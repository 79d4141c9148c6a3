//! Results of steps in the store.

use moorline_protocol::message::StepReply;
use sqlx::SqliteConnection;

use super::{
    super::{StoreError, column, failed_to},
    InvocationRow,
};
use crate::engine::invocation::StepRank;

/// What is known of the steps, without their output.
pub(super) async fn load_ranks(
    connection: &mut SqliteConnection,
    row: &mut InvocationRow,
) -> Result<(), StoreError> {
    const RANKS: &str =
        "SELECT name, is_final, made_at FROM step_result WHERE command_id = $1 AND instance_id = $2";
    let ranks = sqlx::query(RANKS)
        .bind(row.command_id.as_str())
        .bind(row.instance_id.as_str())
        .fetch_all(connection)
        .await
        .map_err(failed_to("read the results of steps"))?;
    for rank in &ranks {
        let value = StepRank {
            is_final: column(rank, "is_final")?,
            made_at: column(rank, "made_at")?,
        };
        row.invocation.steps.insert(column(rank, "name")?, value);
    }
    Ok(())
}

pub(super) async fn upsert_step(
    connection: &mut SqliteConnection,
    row: &InvocationRow,
    (name, rank): (&str, StepRank),
    step: &StepReply,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO step_result (command_id, instance_id, name, is_final, made_at, status, code, action, \
         started_at, ended_at, output_s3_bucket_name, output_s3_key_prefix, output, standard_output, \
         standard_error) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
         ON CONFLICT (command_id, instance_id, name) DO UPDATE SET is_final = excluded.is_final, \
         made_at = excluded.made_at, status = excluded.status, code = excluded.code, \
         action = excluded.action, started_at = excluded.started_at, ended_at = excluded.ended_at, \
         output_s3_bucket_name = excluded.output_s3_bucket_name, \
         output_s3_key_prefix = excluded.output_s3_key_prefix, output = excluded.output, \
         standard_output = excluded.standard_output, standard_error = excluded.standard_error",
    )
    .bind(row.command_id.as_str())
    .bind(row.instance_id.as_str())
    .bind(name)
    .bind(rank.is_final)
    .bind(rank.made_at)
    .bind(step.status.as_str())
    .bind(step.code)
    .bind(&step.name)
    .bind(&step.start_date_time)
    .bind(&step.end_date_time)
    .bind(&step.output_s3_bucket_name)
    .bind(&step.output_s3_key_prefix)
    .bind(&step.output)
    .bind(&step.standard_output)
    .bind(&step.standard_error)
    .execute(connection)
    .await
    .map_err(failed_to("write the result of a step"))?;
    Ok(())
}
