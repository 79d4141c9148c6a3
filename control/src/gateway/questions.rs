//! Questions about the policy of a node's owner that wait for its answer, of one control channel.

use std::sync::Arc;

use moorline_protocol::message::PolicyAnswer;
use tokio::sync::oneshot;

/// Questions of one node that wait at the same time.
const MOST_QUESTIONS: usize = 4;
/// Most characters of a node's reason that are shown.
const MOST_REASON: usize = 1000;

/// One question.
#[derive(Debug)]
struct Question {
    id: u64,
    /// `None`: it has been sent.
    content: Option<Arc<str>>,
    asker: oneshot::Sender<PolicyAnswer>,
}

#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: Vec<Question>,
    last_id: u64,
}

impl Questions {
    /// A new one, and where its answer will be. `None`: too many wait.
    pub(super) fn ask(&mut self, content: &Arc<str>) -> Option<oneshot::Receiver<PolicyAnswer>> {
        // whoever asked may have gone
        self.waiting.retain(|question| !question.asker.is_closed());
        if self.waiting.len() >= MOST_QUESTIONS {
            return None;
        }
        let (asker, answer) = oneshot::channel();
        self.last_id += 1;
        self.waiting.push(Question {
            id: self.last_id,
            content: Some(Arc::clone(content)),
            asker,
        });
        Some(answer)
    }

    /// One that is to be sent now.
    pub(super) fn take(&mut self) -> Option<(u64, Arc<str>)> {
        let mut waiting = self.waiting.iter_mut();
        waiting.find_map(|question| Some((question.id, question.content.take()?)))
    }

    /// The node has answered. Its text is cut to what people read.
    pub(super) fn answered(&mut self, mut answer: PolicyAnswer) {
        let found = self
            .waiting
            .iter()
            .position(|question| question.id == answer.question_id);
        let Some(found) = found else { return };
        answer.reason = answer.reason.chars().take(MOST_REASON).collect();
        // gone: nobody asks any more
        self.waiting.swap_remove(found).asker.send(answer).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(question_id: u64) -> PolicyAnswer {
        PolicyAnswer {
            question_id,
            is_allowed: true,
            reason: "x".repeat(5000),
            needs_signature: false,
        }
    }

    #[test]
    fn each_question_is_sent_once_and_gets_its_own_answer_and_few_wait() {
        let mut questions = Questions::default();
        let content: Arc<str> = "{}".into();
        let mut first = questions.ask(&content).unwrap();
        let mut second = questions.ask(&content).unwrap();
        assert_eq!(questions.take().unwrap().0, 1);
        assert_eq!(questions.take().unwrap().0, 2);
        assert!(questions.take().is_none());
        questions.answered(answer(7));
        questions.answered(answer(2));
        assert!(first.try_recv().is_err());
        assert_eq!(second.try_recv().unwrap().reason.len(), MOST_REASON);
        let more: Vec<_> = (0..9).map_while(|_| questions.ask(&content)).collect();
        assert_eq!(more.len(), MOST_QUESTIONS - 1);
        // whoever has gone leaves room
        drop(more);
        assert!(questions.ask(&content).is_some());
    }
}
