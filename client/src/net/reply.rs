//! An answer as it came: the frame, and a way to read its header without copying it.

use std::sync::Arc;

use bytes::Bytes;
use mezzo_protocol::error::DecodeError;
use mezzo_protocol::remoting::{Frame, HeaderView, ResponseCode};

use crate::error::RequestError;

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Reply {
    address: Arc<str>,
    frame: Frame,
}

impl Reply {
    /// An answer from `address`.
    pub(crate) const fn new(address: Arc<str>, frame: Frame) -> Self {
        Self { address, frame }
    }

    /// The header.
    pub(crate) fn header(&self) -> Result<HeaderView<'_>, RequestError> {
        HeaderView::parse(&self.frame).map_err(|reason| self.unreadable(reason))
    }

    /// The header, if the code is SUCCESS; else the refusal as an error.
    pub(crate) fn success(&self) -> Result<HeaderView<'_>, RequestError> {
        let header = self.header()?;
        if header.response_code() == ResponseCode::SUCCESS { Ok(header) } else { Err(self.refusal(&header)) }
    }

    /// The error that stands for a refusal.
    pub(crate) fn refusal(&self, header: &HeaderView<'_>) -> RequestError {
        refused(&self.address, header)
    }

    /// The error that stands for an answer of which a part cannot be read.
    pub(crate) fn unreadable(&self, reason: DecodeError) -> RequestError {
        unreadable(&self.address, reason)
    }

    /// The body.
    pub(crate) const fn body(&self) -> &Bytes {
        &self.frame.body
    }
}

/// The error that stands for a refusal by `address`.
pub(crate) fn refused(address: &Arc<str>, header: &HeaderView<'_>) -> RequestError {
    RequestError::Refused {
        address: Arc::clone(address),
        code: header.response_code(),
        remark: header.remark.as_deref().unwrap_or_default().to_owned(),
    }
}

/// The error that stands for an answer of `address` of which a part cannot be read.
pub(crate) fn unreadable(address: &Arc<str>, reason: DecodeError) -> RequestError {
    RequestError::Unreadable { address: Arc::clone(address), reason }
}
