//! Which consumer of a group reads which queue.
