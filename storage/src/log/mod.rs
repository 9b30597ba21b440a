//! The log: one endless run of positions, cut into segment files, written frame by frame.
