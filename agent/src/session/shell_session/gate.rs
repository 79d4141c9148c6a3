//! Output that is read and not shown yet, since it is not recorded for good (`transcript.strict`).

use std::collections::VecDeque;

use bytes::Bytes;
use moorline_protocol::message::PayloadType;

/// With this much waiting, no more is read.
pub(super) const MAX_GATED_BYTES: usize = 64 * 1024;

/// A queue that opens as far as the endpoint has the recording.
#[derive(Debug, Default)]
pub(super) struct Gate {
    waiting: VecDeque<(PayloadType, Bytes)>,
    bytes: usize,
    /// Bytes that went through.
    passed: u64,
}

impl Gate {
    pub(super) fn push(&mut self, payload_type: PayloadType, bytes: Bytes) {
        self.bytes += bytes.len();
        self.waiting.push_back((payload_type, bytes));
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// The next that may be shown, when of all output so far this much is recorded for good.
    pub(super) fn next(&mut self, confirmed: u64) -> Option<(PayloadType, Bytes)> {
        let open = usize::try_from(confirmed.saturating_sub(self.passed)).unwrap_or(usize::MAX);
        let (payload_type, front) = self.waiting.front_mut()?;
        let payload_type = *payload_type;
        let piece = front.split_to(open.min(front.len()));
        if front.is_empty() {
            self.waiting.pop_front();
        }
        self.bytes -= piece.len();
        self.passed += piece.len() as u64;
        (!piece.is_empty()).then_some((payload_type, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_passes_before_it_is_confirmed_and_each_passes_once_in_order() {
        let mut gate = Gate::default();
        gate.push(PayloadType::Output, Bytes::from_static(b"abc"));
        gate.push(PayloadType::StdErr, Bytes::from_static(b"de"));
        assert_eq!(gate.next(0), None);
        assert_eq!(
            gate.next(2),
            Some((PayloadType::Output, Bytes::from_static(b"ab")))
        );
        assert_eq!(gate.next(2), None);
        assert_eq!(gate.len(), 3);
        assert_eq!(
            gate.next(5),
            Some((PayloadType::Output, Bytes::from_static(b"c")))
        );
        assert_eq!(
            gate.next(5),
            Some((PayloadType::StdErr, Bytes::from_static(b"de")))
        );
        assert_eq!((gate.next(5), gate.len()), (None, 0));
    }
}
