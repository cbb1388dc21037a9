//! The body of an answer, which counts for the client that asked: while it is sent, it keeps the client's place in the limit of
//! connections (A4), also where the connection is a proxy's. Must not know what is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::reply::Body;
use crate::arrival::Arrival;
use crate::peer::Peer;

/// A body. hyper drops it when all of it was sent, or the connection has ended.
pub(super) struct Counted {
    body: Body,
    _asker: Arc<Peer>,
    arrival: Arc<Arrival>,
}

impl Counted {
    pub(super) fn new(body: Body, asker: Arc<Peer>, arrival: Arc<Arrival>) -> Self {
        Self { body, _asker: asker, arrival }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.arrival.answered();
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
