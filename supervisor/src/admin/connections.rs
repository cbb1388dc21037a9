//! The open connections of the administration, of which there is a maximum. If there is no room for a new one, the
//! oldest connection whose request is not being answered is closed: it has sent no request that the gate lets through,
//! or it has its answer already. So a client that only holds connections open keeps no other client out. Knows nothing
//! of what is asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

/// The open connections. Dropping this ends them.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    /// The oldest first.
    open: VecDeque<Open>,
    /// Notified when a connection has its answer.
    answered: Arc<Notify>,
}

#[derive(Debug)]
struct Open {
    task: AbortHandle,
    mark: Mark,
}

/// Says of a connection whether its request is let through and is being answered.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    is_let_through: Arc<AtomicBool>,
    answered: Arc<Notify>,
}

impl Mark {
    pub(super) fn let_through(&self) {
        self.is_let_through.store(true, Ordering::Relaxed);
    }

    /// The connection has its answer, and may be closed for another.
    pub(super) fn answered(&self) {
        self.is_let_through.store(false, Ordering::Relaxed);
        self.answered.notify_one();
    }

    fn is_let_through(&self) -> bool {
        self.is_let_through.load(Ordering::Relaxed)
    }
}

impl Connections {
    /// Waits until a connection has ended; for ever if there is none. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => self.open.retain(|open| !open.task.is_finished()),
            None => std::future::pending().await,
        }
    }

    /// Waits until fewer than `most` connections are open, or one of them can be closed for a new one. Cancel-safe.
    pub(super) async fn room(&mut self, most: usize) {
        loop {
            self.open.retain(|open| !open.task.is_finished());
            if self.has_room(most) {
                return;
            }
            let answered = Arc::clone(&self.answered);
            tokio::select! {
                () = self.ended() => {}
                () = answered.notified() => {}
            }
        }
    }

    fn has_room(&self, most: usize) -> bool {
        self.open.len() < most || self.open.iter().any(|open| !open.mark.is_let_through())
    }

    /// Begins a connection, for which there is [room](Self::room). If `most` are open, the oldest that can be closed is
    /// closed.
    pub(super) fn begin<T>(&mut self, most: usize, attend: impl FnOnce(Mark) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        self.open.retain(|open| !open.task.is_finished());
        if self.open.len() >= most
            && let Some(at) = self.open.iter().position(|open| !open.mark.is_let_through())
            && let Some(oldest) = self.open.remove(at)
        {
            oldest.task.abort();
        }
        let is_let_through = Arc::default();
        let mark = Mark { is_let_through, answered: Arc::clone(&self.answered) };
        let task = self.tasks.spawn(attend(mark.clone()));
        self.open.push_back(Open { task, mark });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn o3_the_oldest_gives_way_that_has_asked_for_nothing() {
        let (said, mut ended) = mpsc::unbounded_channel();
        let mut connections = Connections::default();
        let begin = |connections: &mut Connections, number: u32, asks: bool| {
            let said = said.clone();
            connections.begin(2, |mark| {
                if asks {
                    mark.let_through();
                }
                let end = End(number, said);
                async move {
                    let _end = end;
                    pending::<()>().await;
                }
            });
        };
        begin(&mut connections, 1, true);
        begin(&mut connections, 2, false);
        begin(&mut connections, 3, false);
        connections.ended().await;
        assert_eq!(ended.recv().await, Some(2));
        assert!(connections.has_room(2));
        begin(&mut connections, 4, true);
        connections.ended().await;
        assert_eq!(ended.recv().await, Some(3));
        assert!(!connections.has_room(2), "both are being answered");
    }

    #[tokio::test]
    async fn o3_there_is_room_as_soon_as_one_is_answered_and_no_more_than_so_many() {
        let mut connections = Connections::default();
        let mut marks = Vec::new();
        for _ in 0..2 {
            connections.room(2).await;
            connections.begin(2, |mark| {
                mark.let_through();
                marks.push(mark);
                pending::<()>()
            });
        }
        let waits = timeout(Duration::from_millis(50), connections.room(2)).await;
        assert!(waits.is_err(), "both are being answered");
        let one = marks.remove(0);
        tokio::spawn(async move { one.answered() });
        timeout(Duration::from_secs(20), connections.room(2)).await.expect("one is answered");
        connections.begin(2, |_| pending::<()>());
        assert_eq!(connections.open.len(), 2);
    }

    /// Says when it is dropped.
    struct End(u32, mpsc::UnboundedSender<u32>);

    impl Drop for End {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }
}
