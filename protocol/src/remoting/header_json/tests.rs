//! What real clients send, and any bytes.
