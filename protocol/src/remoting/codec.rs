//! Frames for tokio's framed connections: what the client uses.
