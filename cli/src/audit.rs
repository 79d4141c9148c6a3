//! `moorline audit`: the endpoint's audit log, listed, followed, exported and verified (docs/audit-log.md).

mod cloud_trail;
mod export;
mod options;
pub(crate) mod pages;
mod text;
mod verify;

pub(crate) use options::{AuditCommand, AuditOptions};

use self::{pages::Pages, text::Lines};
use crate::{
    console,
    error::{self, CliError},
    operator::{Operator, is_passing},
};

/// How long `--follow` waits for more with one call, in milliseconds.
const WAIT_MILLIS: i32 = 20_000;

/// `connect` reads the settings, which verifying does not need.
pub(crate) async fn execute(
    connect: impl Fn() -> Result<Operator, CliError>,
    options: AuditOptions,
    json: bool,
) -> Result<u8, CliError> {
    match options.command {
        Some(AuditCommand::Verify { file, keys }) => verify::execute(&file, &keys, json),
        Some(AuditCommand::Export { format, out, filter }) => {
            export::execute(&connect()?, format, &out, &filter).await?;
            Ok(0)
        }
        None => {
            let operator = connect()?;
            list(&operator, &options, json).await?;
            Ok(0)
        }
    }
}

async fn list(operator: &Operator, options: &AuditOptions, json: bool) -> Result<(), CliError> {
    let mut pages = Pages::new(operator, options.filter.request(operator).await?);
    let mut lines = Lines::default();
    let mut is_caught_up = false;
    loop {
        pages.wait_millis = (options.follow && is_caught_up).then_some(WAIT_MILLIS);
        let page = match pages.next().await {
            Ok(page) => page,
            Err(CliError::Call(passing)) if options.follow && is_caught_up && is_passing(&passing) => {
                console::note(&format!("{}; trying again", error::chain(&passing)));
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        for record in &page.records {
            if json {
                console::print_line(record)?;
            } else if let Some(line) = lines.add(record) {
                console::print_line(&line)?;
            }
        }
        is_caught_up |= page.is_end;
        if is_caught_up && !options.follow {
            break;
        }
    }
    for line in lines.finish() {
        console::print_line(&line)?;
    }
    Ok(())
}
