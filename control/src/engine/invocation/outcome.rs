//! How an invocation ends, and the words for it.

use moorline_protocol::message::ResultStatus;

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The policy of the node's owner refused it; nothing ran.
    AccessDenied,
    /// Before the node got it, or by the node.
    Cancelled,
    /// Cancelled after it was sent, and the node never said that it had it.
    CancelUnconfirmed,
    /// It was never sent.
    DeliveryTimedOut,
    /// It was sent, and the node never said that it had it.
    DeliveryUnconfirmed,
    /// The node ended it, as its time was over.
    ExecutionTimedOut,
    Failed,
    /// The document is not for the node's platform; never sent.
    InvalidPlatform,
    /// The node took it and never reported its end.
    ResultUnknown,
    Success,
    /// The command had more errors than it may have before this one had its turn; never sent.
    Terminated,
    /// The node was deregistered before it was sent.
    Undeliverable,
}

impl Outcome {
    pub(crate) const ALL: [Self; 12] = [
        Self::AccessDenied,
        Self::Cancelled,
        Self::CancelUnconfirmed,
        Self::DeliveryTimedOut,
        Self::DeliveryUnconfirmed,
        Self::ExecutionTimedOut,
        Self::Failed,
        Self::InvalidPlatform,
        Self::ResultUnknown,
        Self::Success,
        Self::Terminated,
        Self::Undeliverable,
    ];

    /// `Status`, as the API shows it.
    pub(crate) fn status(self) -> &'static str {
        match self {
            Self::Cancelled | Self::CancelUnconfirmed | Self::Terminated => "Cancelled",
            Self::DeliveryTimedOut
            | Self::DeliveryUnconfirmed
            | Self::ExecutionTimedOut
            | Self::ResultUnknown => "TimedOut",
            Self::AccessDenied | Self::Failed | Self::InvalidPlatform | Self::Undeliverable => "Failed",
            Self::Success => "Success",
        }
    }

    /// `StatusDetails`, at most 100 characters. SSM's word comes first; what cannot be known is added.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDenied",
            Self::Cancelled => "Cancelled",
            Self::CancelUnconfirmed => {
                "Cancelled (sent, but not confirmed by the node: whether it ran is unknown)"
            }
            Self::DeliveryTimedOut => "DeliveryTimedOut",
            Self::DeliveryUnconfirmed => {
                "DeliveryTimedOut (sent, but not confirmed by the node: whether it ran is unknown)"
            }
            Self::ExecutionTimedOut => "ExecutionTimedOut",
            Self::Failed => "Failed",
            Self::InvalidPlatform => "InvalidPlatform",
            Self::ResultUnknown => "ExecutionTimedOut (no result from the node: the outcome is unknown)",
            Self::Success => "Success",
            Self::Terminated => "Terminated",
            Self::Undeliverable => "Undeliverable",
        }
    }

    /// Whether a late reply tells something that the final state does not.
    pub(super) fn is_unknown(self) -> bool {
        matches!(
            self,
            Self::CancelUnconfirmed | Self::DeliveryUnconfirmed | Self::ResultUnknown
        )
    }

    pub(super) fn from_document(status: ResultStatus, is_refused: bool) -> Option<Self> {
        match status {
            ResultStatus::Failed if is_refused => Some(Self::AccessDenied),
            ResultStatus::Success | ResultStatus::Skipped => Some(Self::Success),
            ResultStatus::Failed => Some(Self::Failed),
            ResultStatus::Cancelled => Some(Self::Cancelled),
            ResultStatus::TimedOut => Some(Self::ExecutionTimedOut),
            ResultStatus::NotStarted
            | ResultStatus::InProgress
            | ResultStatus::SuccessAndReboot
            | ResultStatus::PassedAndReboot => None,
        }
    }
}
