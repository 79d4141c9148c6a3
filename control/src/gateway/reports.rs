//! What a node says of commands, on its way to the disk.

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::mpsc;

use crate::store::StoreError;

/// Reports of one control channel that wait for the disk at the same time: what a node says in a row, as of a short
/// command, is in one transaction.
const MOST_REPORTS: usize = 8;

/// One thing that a node said; the frame that answers it, if there is one.
pub(super) type Report = BoxFuture<'static, Stored>;
pub(super) type Stored = Result<Option<Bytes>, StoreError>;

/// Those of one control channel. They have a task of their own: one that holds the store's writer has to go on while
/// the channel itself waits for the writer. They are begun in the order in which the node sent them, and so written.
#[derive(Debug)]
pub(super) struct Reports {
    under_way: usize,
    queue: mpsc::Sender<Report>,
    stored: mpsc::Receiver<Stored>,
}

impl Reports {
    pub(super) fn start() -> Self {
        let (queue, reports) = mpsc::channel(MOST_REPORTS);
        let (answers, stored) = mpsc::channel(MOST_REPORTS);
        tokio::spawn(store(reports, answers));
        Self {
            under_way: 0,
            queue,
            stored,
        }
    }

    /// Whether another may be pushed; so neither queue is ever full.
    pub(super) fn has_room(&self) -> bool {
        self.under_way < MOST_REPORTS
    }

    pub(super) fn push(&mut self, report: Report) {
        // refused without room, when the node tells it again, and after a panic, which `next` tells
        if self.queue.try_send(report).is_ok() {
            self.under_way += 1;
        }
    }

    /// The next that is stored, or could not be. `None`: one has panicked, and nothing is stored any more.
    pub(super) async fn next(&mut self) -> Option<Stored> {
        let stored = self.stored.recv().await?;
        self.under_way = self.under_way.saturating_sub(1);
        Some(stored)
    }
}

/// Ends with the channel, when what is under way is done: the node tells it again, but what follows of a command's end is
/// done by whoever stored it first.
async fn store(mut reports: mpsc::Receiver<Report>, answers: mpsc::Sender<Stored>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            report = reports.recv() => match report {
                Some(report) => under_way.push(report),
                None => break,
            },
            Some(stored) = under_way.next() => {
                // the channel may have gone
                let _gone = answers.try_send(stored);
            }
        }
    }
    while under_way.next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_a_node_said_is_written_while_its_channel_waits_for_the_same_writer() {
        let writer = Arc::new(tokio::sync::Mutex::new(()));
        let mut reports = Reports::start();
        let (begun, has_begun) = oneshot::channel();
        let (go, may_go) = oneshot::channel();
        let of_report = Arc::clone(&writer);
        reports.push(Box::pin(async move {
            let _held = of_report.lock().await;
            begun.send(()).ok();
            may_go.await.ok();
            tokio::task::yield_now().await;
            Ok(None)
        }));
        has_begun.await.unwrap();
        go.send(()).unwrap();
        // the channel does something else, which needs the writer, and asks for no report meanwhile
        drop(writer.lock().await);
        assert!(matches!(reports.next().await, Some(Ok(None))));
        assert!(reports.has_room());
    }

    #[tokio::test]
    async fn what_is_begun_is_done_when_its_channel_goes() {
        let mut reports = Reports::start();
        let (begun, has_begun) = oneshot::channel();
        let (go, may_go) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        reports.push(Box::pin(async move {
            begun.send(()).ok();
            may_go.await.ok();
            done.send(()).ok();
            Ok(None)
        }));
        has_begun.await.unwrap();
        drop(reports);
        tokio::task::yield_now().await;
        go.send(()).ok();
        assert_eq!(is_done.await, Ok(()));
    }

    #[tokio::test]
    async fn reports_are_begun_in_their_order_and_few_at_a_time() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut reports = Reports::start();
        let mut number = 0;
        while reports.has_room() {
            let order = Arc::clone(&order);
            reports.push(Box::pin(async move {
                order.lock().unwrap().push(number);
                Ok(None)
            }));
            number += 1;
        }
        assert_eq!(number, MOST_REPORTS);
        for _ in 0..number {
            reports.next().await.unwrap().unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..number).collect::<Vec<_>>());
        assert!(reports.has_room());
    }
}
