//! What is recorded of each operation, and what waits for it. A new operation does not compile without its line here.

use moorline_ssm::OperationId;

/// How calls of an operation are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It changes something: its acceptance is on disk before it is carried out, and it is refused when that cannot be.
    Change,
    /// It changes something as well, and must go even when nothing can be recorded: it stops what runs, lets an
    /// operator back to it, or lets a node vouch for what it records.
    Urgent,
    /// It changes nothing, or nothing that an operator decides: recorded within a second, repeats counted.
    Read,
    /// Only its refusals are recorded.
    Omitted,
}

/// The rule of each operation.
pub(super) fn rule(operation: OperationId) -> Rule {
    match operation {
        OperationId::AddTagsToResource
        | OperationId::CreateActivation
        | OperationId::CreateDocument
        | OperationId::DeleteActivation
        | OperationId::DeleteDocument
        | OperationId::DeleteNodeGroup
        | OperationId::DeleteParameter
        | OperationId::DeleteParameters
        | OperationId::DeleteTranscript
        | OperationId::DeregisterManagedInstance
        | OperationId::LabelParameterVersion
        | OperationId::PutNodeGroup
        | OperationId::PutParameter
        | OperationId::PutTranscriptLegalHold
        | OperationId::ModifyDocumentPermission
        | OperationId::RegisterManagedInstance
        | OperationId::RemoveTagsFromResource
        | OperationId::SendCommand
        | OperationId::SendCommandWave
        | OperationId::StartSession
        | OperationId::TagOperator
        | OperationId::UnlabelParameterVersion
        | OperationId::UntagOperator
        | OperationId::UpdateDocument
        | OperationId::UpdateDocumentDefaultVersion
        | OperationId::UpdateManagedInstancePublicKey => Rule::Change,
        OperationId::CancelCommand
        | OperationId::RegisterTranscriptKey
        | OperationId::ResumeSession
        | OperationId::TerminateSession => Rule::Urgent,
        OperationId::Decrypt
        | OperationId::DescribeActivations
        | OperationId::DescribeDocument
        | OperationId::DescribeDocumentPermission
        | OperationId::DescribeInstanceInformation
        | OperationId::DescribeParameters
        | OperationId::DescribeSessions
        | OperationId::ExplainCommand
        | OperationId::GenerateDataKey
        | OperationId::GetCommandInvocation
        | OperationId::GetConnectionStatus
        | OperationId::GetDocument
        | OperationId::GetManifest
        | OperationId::GetParameter
        | OperationId::GetParameterHistory
        | OperationId::GetParameters
        | OperationId::GetParametersByPath
        | OperationId::GetPublicKeys
        | OperationId::GetTranscript
        | OperationId::ListAuditRecords
        | OperationId::ListCommandInvocations
        | OperationId::ListCountersignatures
        | OperationId::ListCommands
        | OperationId::ListDocumentVersions
        | OperationId::ListDocuments
        | OperationId::ListNodeGroups
        | OperationId::ListOperators
        | OperationId::ListTagsForResource
        | OperationId::ListTranscripts
        | OperationId::PlanCommand
        // The bytes alone change nothing: a document that they are attached to does, and names their hash.
        | OperationId::PutAttachment
        | OperationId::RequestManagedInstanceRoleToken => Rule::Read,
        // What a node reports of itself and asks for by itself, at short intervals: no one decides it, and nothing but
        // what is shown of the node comes of it.
        OperationId::ListInstanceAssociations
        | OperationId::PutComplianceItems
        | OperationId::PutInventory
        | OperationId::UpdateInstanceAssociationStatus
        | OperationId::UpdateInstanceInformation => Rule::Omitted,
        // How commands reach a node of an old protocol, polled all the time: the commands themselves are recorded.
        OperationId::AcknowledgeMessage
        | OperationId::FailMessage
        | OperationId::GetMessages
        | OperationId::SendReply => Rule::Omitted,
    }
}

impl Rule {
    /// As the log says it; of what is left out nothing.
    pub(super) fn is_read_only(self) -> Option<bool> {
        match self {
            Self::Change | Self::Urgent => Some(false),
            Self::Read => Some(true),
            Self::Omitted => None,
        }
    }
}
