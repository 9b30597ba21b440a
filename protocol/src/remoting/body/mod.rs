//! JSON bodies of requests and replies.
