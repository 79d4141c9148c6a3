//! Where the output of a command is besides here, as the API tells it: the bucket that the command names.

use jiff::Timestamp;
use moorline_ssm::command::SendCommandRequest;

use crate::{
    api::ApiResult,
    app::App,
    store::{CommandRow, InvocationRow, OutputObject, OutputUpload, UploadState},
};

/// The output of an invocation in its bucket.
#[derive(Debug, Default)]
pub(super) struct OutputPlace {
    bucket: String,
    objects: Vec<OutputObject>,
    /// How it stands, if that is to be told.
    note: Option<String>,
}

impl OutputPlace {
    /// Looks it up, if there is a bucket.
    pub(super) async fn find(app: &App, command: &CommandRow, row: &InvocationRow) -> ApiResult<Self> {
        let Some(bucket) = bucket(&command.request) else {
            return Ok(Self::default());
        };
        let upload = app.store.output_upload(&row.command_id, &row.instance_id).await?;
        let has_ended = row.invocation.outcome().is_some();
        let note = match &upload {
            None => Some(format!(
                "The output is not brought to bucket {bucket}: the endpoint had no store for output when the command \
                 was sent (moorline-control serve --output-store-credentials); an amazon-ssm-agent brings it there \
                 by itself."
            )),
            Some(_) if app.output_store.is_none() => Some(format!(
                "The output is not brought to bucket {bucket}: the endpoint has no store for output now \
                 (moorline-control serve --output-store-credentials)."
            )),
            Some(upload) if has_ended => note(bucket, upload),
            Some(_) => None,
        };
        Ok(Self {
            bucket: bucket.to_owned(),
            objects: upload.map(|upload| upload.objects).unwrap_or_default(),
            note,
        })
    }

    /// The URL of a stream of a step; empty as long as there is no object.
    pub(super) fn url(&self, step: &str, stream: &str) -> String {
        self.object(step, stream)
            .map(|object| object.url.clone())
            .unwrap_or_default()
    }

    /// The bucket, and what stands before the names of the step's objects; `None`: it has none there.
    pub(super) fn place(&self, step: &str) -> Option<(String, String)> {
        let object = ["stdout", "stderr"]
            .into_iter()
            .find_map(|stream| self.object(step, stream))?;
        let mut parts = object.key.rsplitn(3, '/');
        Some((self.bucket.clone(), parts.nth(2)?.to_owned()))
    }

    /// What the invocation's trace says, and how it stands with the bucket.
    pub(super) fn told_with(&self, trace: String) -> String {
        match &self.note {
            None => trace,
            Some(note) if trace.is_empty() => note.clone(),
            Some(note) => format!("{trace} {note}"),
        }
    }

    fn object(&self, step: &str, stream: &str) -> Option<&OutputObject> {
        self.objects
            .iter()
            .find(|object| object.step == step && object.stream == stream && !object.url.is_empty())
    }
}

/// The bucket that is to have the output.
pub(super) fn bucket(request: &SendCommandRequest) -> Option<&str> {
    request
        .output_s3_bucket_name
        .as_deref()
        .filter(|bucket| !bucket.is_empty())
}

fn note(bucket: &str, upload: &OutputUpload) -> Option<String> {
    let OutputUpload {
        state,
        attempts,
        next_at,
        note,
        ..
    } = upload;
    if note.is_empty() {
        return None;
    }
    Some(match state {
        UploadState::Done => format!("Output in bucket {bucket}: {note}."),
        UploadState::Failed => format!("The output was not brought to bucket {bucket}: {note}."),
        UploadState::Waiting => {
            let tries = match attempts {
                0 => String::new(),
                1 => "tried once, ".to_owned(),
                attempts => format!("tried {attempts} times, "),
            };
            let next = next_at.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
            let next = next.map_or_else(String::new, |next| format!("{next:.0}"));
            format!("The output is not in bucket {bucket} yet: {note}; {tries}next at {next}.")
        }
    })
}
