//! Streams of steps on their way into objects: a short one at once, a long one in parts.

use std::collections::BTreeSet;

use moorline_protocol::{
    document::MAX_STEPS,
    transcript::{OutputStep, OutputStream},
};
use object_store::Error;

use super::{Failure, reason};
use crate::{
    app::App,
    engine::output_upload::object_key,
    store::{DueUpload, OutputBucket, OutputObject},
};

/// Every part but the last, in bytes: the least that S3 takes; with the 10,000 parts of an object that is far more than a
/// recording holds. Uploads that are under way at an update go on, so another length must not meet old parts.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// Whose output goes where.
type Task<'a> = (&'a App, &'a OutputBucket, &'a DueUpload);

/// The streams of the step that runs; those of the ones before are finished.
pub(super) struct Sinks<'a> {
    task: Task<'a>,
    prefix: &'a str,
    /// What there was before.
    known: Vec<OutputObject>,
    finished: Finished,
    step: Option<OutputStep>,
    sinks: Vec<Sink<'a>>,
}

impl<'a> Sinks<'a> {
    pub(super) async fn new(task: Task<'a>, prefix: &'a str) -> Result<Self, Failure> {
        let (app, _, due) = task;
        let upload = app.store.output_upload(&due.command_id, &due.instance_id).await?;
        Ok(Self {
            task,
            prefix,
            known: upload.map(|upload| upload.objects).unwrap_or_default(),
            finished: Finished::default(),
            step: None,
            sinks: Vec::new(),
        })
    }

    /// What a step wrote, in its order.
    pub(super) async fn push(
        &mut self,
        step: &OutputStep,
        stream: OutputStream,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        if self.step.as_ref() != Some(step) {
            self.finish().await?;
            self.finished.admit(&step.name).map_err(Failure::Final)?;
            self.step = Some(step.clone());
        }
        let place = self.sinks.iter().position(|sink| sink.stream == stream);
        let place = place.unwrap_or_else(|| {
            self.sinks.push(self.begin(step, stream));
            self.sinks.len() - 1
        });
        match self.sinks.get_mut(place) {
            Some(sink) => sink.push(bytes).await,
            None => Ok(()),
        }
    }

    /// The step writes no more.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        for sink in self.sinks.drain(..) {
            sink.finish().await?;
        }
        self.finished.0.extend(self.step.take().map(|step| step.name));
        Ok(())
    }

    fn begin(&self, step: &OutputStep, stream: OutputStream) -> Sink<'a> {
        let (_, _, due) = self.task;
        let is_known = |object: &&OutputObject| object.step == step.name && object.stream == stream.name();
        let object = self.known.iter().find(is_known).cloned();
        let ids = (due.command_id.as_str(), due.instance_id.as_str());
        Sink {
            task: self.task,
            stream,
            object: object.unwrap_or_else(|| OutputObject {
                step: step.name.clone(),
                stream: stream.name().to_owned(),
                key: object_key(self.prefix, ids, step, stream),
                url: String::new(),
                upload_id: None,
                parts: Vec::new(),
            }),
            buffer: Vec::new(),
            part: 0,
        }
    }
}

/// Names of steps whose output is in the bucket. What a node says of them is its own: it makes no more objects than a
/// document has steps.
#[derive(Debug, Default)]
struct Finished(BTreeSet<String>);

impl Finished {
    /// Whether a step of this name may come; why not.
    fn admit(&self, name: &str) -> Result<(), String> {
        if self.0.contains(name) {
            return Err(format!("two steps have the name {name}"));
        }
        match self.0.len() < MAX_STEPS {
            true => Ok(()),
            false => Err(format!("the recording has more than {MAX_STEPS} steps")),
        }
    }
}

/// One stream of a step.
struct Sink<'a> {
    task: Task<'a>,
    stream: OutputStream,
    object: OutputObject,
    /// What is not brought there yet, less than a part.
    buffer: Vec<u8>,
    /// The number of the part that it is the begin of.
    part: usize,
}

impl Sink<'_> {
    async fn push(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        if !self.object.url.is_empty() {
            // it is there since before the endpoint was started again
            return Ok(());
        }
        while !bytes.is_empty() {
            let room = PART_BYTES - self.buffer.len();
            let (taken, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(taken);
            bytes = rest;
            if self.buffer.len() == PART_BYTES {
                self.put_part().await?;
            }
        }
        Ok(())
    }

    async fn put_part(&mut self) -> Result<(), Failure> {
        let (_, bucket, _) = self.task;
        let bytes = std::mem::take(&mut self.buffer);
        let part = self.part;
        self.part += 1;
        if part < self.object.parts.len() {
            return Ok(());
        }
        let upload = match &self.object.upload_id {
            Some(upload) => upload.clone(),
            None => {
                let begun = bucket.begin(&self.object.key).await;
                let upload = begun.map_err(|error| refused(&error))?;
                self.object.upload_id = Some(upload.clone());
                self.save().await?;
                upload
            }
        };
        match bucket.put_part(&self.object.key, &upload, part, bytes).await {
            Ok(tag) => {
                self.object.parts.push(tag);
                self.save().await
            }
            Err(error @ Error::NotFound { .. }) => self.start_over(&error).await,
            Err(error) => Err(refused(&error)),
        }
    }

    /// Nothing follows: the object is made whole. What is empty is no object, as in the original.
    async fn finish(mut self) -> Result<(), Failure> {
        let (_, bucket, _) = self.task;
        if !self.object.url.is_empty() {
            return Ok(());
        }
        if self.part > 0 {
            if !self.buffer.is_empty() {
                self.put_part().await?;
            }
            let upload = self.object.upload_id.clone().unwrap_or_default();
            let completed = bucket
                .complete(&self.object.key, &upload, &self.object.parts)
                .await;
            if let Err(error) = completed {
                return self.start_over(&error).await;
            }
        } else if !self.buffer.is_empty() {
            let put = bucket
                .put(&self.object.key, std::mem::take(&mut self.buffer))
                .await;
            put.map_err(|error| refused(&error))?;
        } else {
            return Ok(());
        }
        self.object.upload_id = None;
        self.object.parts = Vec::new();
        self.object.url = bucket.url_of(&self.object.key);
        self.save().await
    }

    /// The upload in parts is not there any more, or cannot be finished: the next attempt begins another.
    async fn start_over(&mut self, error: &Error) -> Result<(), Failure> {
        let (_, bucket, _) = self.task;
        if let Some(upload) = self.object.upload_id.take()
            && let Err(error) = bucket.abort(&self.object.key, &upload).await
        {
            tracing::debug!(%error, key = self.object.key, "an upload that is begun anew cannot be aborted");
        }
        self.object.parts = Vec::new();
        self.save().await?;
        Err(refused(error))
    }

    async fn save(&self) -> Result<(), Failure> {
        let (app, _, due) = self.task;
        Ok(app.store.save_output_object(due, &self.object).await?)
    }
}

fn refused(error: &Error) -> Failure {
    Failure::Passing(match error {
        Error::NotFound { .. } => format!("the bucket is not there: {}", reason(error)),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            format!("the bucket refuses it: {}", reason(error))
        }
        _ => reason(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_makes_no_more_objects_than_a_document_has_steps() {
        let mut finished = Finished::default();
        for step in 0..MAX_STEPS {
            let name = format!("step {step}");
            assert_eq!(finished.admit(&name), Ok(()));
            finished.0.insert(name);
        }
        assert!(finished.admit("step 7").unwrap_err().contains("two steps"));
        assert!(finished.admit("one more").unwrap_err().contains("more than 1000"));
    }
}
