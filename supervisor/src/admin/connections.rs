//! The connections that are open: so many and no more. Where there is no room, the oldest gives way whose request is not
//! being answered: it has sent none that is let through, or has its answer. So whoever holds connections open keeps
//! nobody out who has something to ask. Knows nothing of what is asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// Those that are open, ended with this.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    /// In the order in which they have come.
    open: VecDeque<Open>,
}

#[derive(Debug)]
struct Open {
    task: AbortHandle,
    mark: Mark,
}

/// Says of a connection whether its request is let through and is being answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Mark(Arc<AtomicBool>);

impl Mark {
    pub(super) fn let_through(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// It has its answer, and only has to go.
    pub(super) fn answered(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_let_through(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Connections {
    /// Waits until one has ended; for ever where there is none. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => self.open.retain(|open| !open.task.is_finished()),
            None => std::future::pending().await,
        }
    }

    /// Whether there is room for one more among so many, or can be made.
    pub(super) fn has_room(&self, most: usize) -> bool {
        self.open.len() < most || self.open.iter().any(|open| !open.mark.is_let_through())
    }

    /// Takes one in, in the place of another if there are that many.
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
        let mark = Mark::default();
        let task = self.tasks.spawn(attend(mark.clone()));
        self.open.push_back(Open { task, mark });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::mpsc;

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

    /// Says when it is dropped.
    struct End(u32, mpsc::UnboundedSender<u32>);

    impl Drop for End {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }
}
