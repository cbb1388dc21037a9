//! An answer's body that is its client's: so long as it is sent, the client has its place among its connections (A4),
//! also where the connection is a proxy's. Knows nothing of what is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::reply::Body;
use crate::arrival::Arrival;
use crate::peer::Peer;

/// A body, dropped when all of it was taken, or nobody wants it any more.
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
