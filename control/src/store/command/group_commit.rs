//! Changes that come at the same time share one transaction: what takes time is that the disk syncs, not the change.
//!
//! Each change is applied alone or not at all: when one of a group fails, the group is rolled back and its changes are
//! applied one by one. Whoever brings a change waits until it is on disk.

use std::future::Future;

use futures_util::future::BoxFuture;
use moorline_protocol::error_chain;
use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::{
    super::{StoreError, failed_to},
    heads::Heads,
};

/// Changes of one transaction: others wait for the writer meanwhile.
const MOST_CHANGES: usize = 128;
/// Of them so many are for what is to be sent, if it waits: nodes that report without end stop nothing.
const DELIVERIES: usize = 16;
/// Changes that wait. Who brings more waits too.
const WAITING: usize = 1024;

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tx: Transaction<'static, Sqlite>,
    pub(super) heads: Heads,
}

/// What one caller wants changed. It may be applied more than once, the last time counts.
pub(super) trait Change: Send + 'static {
    type Answer: Send + 'static;

    fn apply(&mut self, group: &mut Group) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;
}

/// Which changes go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// What nodes report: it ends something, and somebody waits for it.
    Report,
    /// What is to be sent to nodes.
    Delivery,
}

/// The writer of groups.
#[derive(Debug, Clone)]
pub(in crate::store) struct GroupCommit {
    reports: mpsc::Sender<Box<dyn Pending>>,
    deliveries: mpsc::Sender<Box<dyn Pending>>,
}

impl GroupCommit {
    /// Starts the task that writes, which ends with its last sender.
    pub(in crate::store) fn start(writer: SqlitePool) -> Self {
        let (reports, report_queue) = mpsc::channel(WAITING);
        let (deliveries, delivery_queue) = mpsc::channel(WAITING);
        tokio::spawn(write_groups(writer, report_queue, delivery_queue));
        Self { reports, deliveries }
    }

    /// Applies a change; after `Ok` it is on disk.
    pub(super) async fn change<C: Change>(&self, turn: Turn, change: C) -> Result<C::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let waiting = Box::new(Waiting {
            change,
            applied: None,
            reply,
        });
        let queue = match turn {
            Turn::Report => &self.reports,
            Turn::Delivery => &self.deliveries,
        };
        let closed = || failed_to("hand a change to the writer")(sqlx::Error::PoolClosed);
        queue.send(waiting).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

async fn write_groups(
    writer: SqlitePool,
    mut reports: mpsc::Receiver<Box<dyn Pending>>,
    mut deliveries: mpsc::Receiver<Box<dyn Pending>>,
) {
    let mut group = Vec::with_capacity(MOST_CHANGES);
    loop {
        let first = tokio::select! {
            biased;
            first = reports.recv() => first,
            first = deliveries.recv() => first,
        };
        // both queues have the same owners: nobody is left
        let Some(first) = first else { return };
        group.push(first);
        while group.len() < MOST_CHANGES {
            let next = match group.len() < MOST_CHANGES - DELIVERIES {
                true => reports.try_recv().or_else(|_| deliveries.try_recv()),
                false => deliveries.try_recv().or_else(|_| reports.try_recv()),
            };
            let Ok(next) = next else { break };
            group.push(next);
        }
        write_group(&writer, &mut group).await;
    }
}

async fn write_group(writer: &SqlitePool, group: &mut Vec<Box<dyn Pending>>) {
    if group.len() > 1 {
        match write(writer, group).await {
            Ok(()) => {
                group.drain(..).for_each(|change| change.settle(Ok(())));
                return;
            }
            Err(error) => tracing::debug!(
                error = %error_chain(&error),
                "a group of changes failed; each is tried alone"
            ),
        }
    }
    for mut change in group.drain(..) {
        let written = write(writer, std::slice::from_mut(&mut change)).await;
        change.settle(written);
    }
}

/// One transaction: all of them, or none.
async fn write(writer: &SqlitePool, changes: &mut [Box<dyn Pending>]) -> Result<(), StoreError> {
    const DOING: &str = "write a group of changes";
    let mut group = Group {
        tx: writer.begin().await.map_err(failed_to(DOING))?,
        heads: Heads::default(),
    };
    for change in changes {
        change.apply(&mut group).await?;
    }
    let Group { mut tx, heads } = group;
    heads.write(&mut tx).await?;
    tx.commit().await.map_err(failed_to(DOING))
}

/// A change without its type.
trait Pending: Send {
    fn apply<'a>(&'a mut self, group: &'a mut Group) -> BoxFuture<'a, Result<(), StoreError>>;

    /// It is on disk, or is not.
    fn settle(self: Box<Self>, written: Result<(), StoreError>);
}

struct Waiting<C: Change> {
    change: C,
    applied: Option<C::Answer>,
    reply: oneshot::Sender<Result<C::Answer, StoreError>>,
}

impl<C: Change> Pending for Waiting<C> {
    fn apply<'a>(&'a mut self, group: &'a mut Group) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.applied = Some(self.change.apply(group).await?);
            Ok(())
        })
    }

    fn settle(self: Box<Self>, written: Result<(), StoreError>) {
        let Self { applied, reply, .. } = *self;
        let answer = match (written, applied) {
            (Ok(()), Some(answer)) => Ok(answer),
            (Ok(()), None) => Err(failed_to("apply a change")(sqlx::Error::WorkerCrashed)),
            (Err(error), _) => Err(error),
        };
        // whoever asked may have gone
        let _gone = reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// Writes a row of a table of the test's own, or fails after writing it.
    struct Note {
        number: i64,
        fails: bool,
    }

    impl Change for Note {
        type Answer = i64;

        async fn apply(&mut self, group: &mut Group) -> Result<i64, StoreError> {
            sqlx::query("INSERT INTO noted (number) VALUES ($1)")
                .bind(self.number)
                .execute(&mut *group.tx)
                .await
                .map_err(failed_to("note"))?;
            if self.fails {
                return Err(StoreError::Corrupt {
                    table: "noted",
                    column: "number",
                    row: self.number.to_string(),
                });
            }
            Ok(self.number)
        }
    }

    #[tokio::test]
    async fn a_change_that_fails_harms_none_of_its_group() {
        let store = Store::temporary().await;
        sqlx::query("CREATE TABLE noted (number BIGINT PRIMARY KEY NOT NULL)")
            .execute(&store.writer)
            .await
            .unwrap();
        // while the writer is taken, all of them come together
        let taken = store.writer.acquire().await.unwrap();
        let changes = (0..300_i64).map(|number| {
            let turn = if number % 2 == 0 {
                Turn::Report
            } else {
                Turn::Delivery
            };
            let fails = number % 100 == 7;
            store.changes.change(turn, Note { number, fails })
        });
        let all = futures_util::future::join_all(changes);
        tokio::pin!(all);
        assert!(futures_util::poll!(&mut all).is_pending());
        drop(taken);
        for (number, answer) in (0..).zip(all.await) {
            assert_eq!(answer.ok(), (number % 100 != 7).then_some(number));
        }
        let noted: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM noted")
            .fetch_one(&store.readers)
            .await
            .unwrap();
        assert_eq!(noted, 297);
    }

    #[tokio::test]
    async fn reports_without_end_hold_nothing_up_that_is_to_be_sent() {
        let store = Store::temporary().await;
        sqlx::query("CREATE TABLE noted (number BIGINT NOT NULL)")
            .execute(&store.writer)
            .await
            .unwrap();
        let taken = store.writer.acquire().await.unwrap();
        let reports = i64::try_from(3 * MOST_CHANGES).unwrap();
        let fails = false;
        let changes = (0..=reports).map(|number| {
            let turn = match number == reports {
                true => Turn::Delivery,
                false => Turn::Report,
            };
            store.changes.change(turn, Note { number, fails })
        });
        // all at once, whatever the runtime's budget
        let all = tokio::task::unconstrained(futures_util::future::join_all(changes));
        tokio::pin!(all);
        assert!(futures_util::poll!(&mut all).is_pending());
        drop(taken);
        all.await;
        let place: i64 = sqlx::query_scalar("SELECT rowid FROM noted WHERE number = $1")
            .bind(reports)
            .fetch_one(&store.readers)
            .await
            .unwrap();
        let first = i64::try_from(MOST_CHANGES).unwrap();
        assert!(
            place <= first,
            "it was in place {place}, behind the first {first}"
        );
    }
}
