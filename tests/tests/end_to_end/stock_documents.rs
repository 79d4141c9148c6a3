//! The documents of the table on the unmodified amazon-ssm-agent, for who has it: what comes of them there is what
//! comes of them here, and where it is not the case says why.

use anyhow::{Result, ensure};

use crate::{
    document_table::{Case, check_remote, files, send},
    stock_peers::StockNode,
};

#[tokio::test]
async fn documents_come_to_the_same_on_the_stock_agent() -> Result<()> {
    let Some(stock) = StockNode::start().await? else {
        return Ok(());
    };
    let there = tempfile::tempdir()?;
    let mut cases = Vec::new();
    for file in files("")? {
        for case in Case::read_all(&file, there.path())? {
            cases.extend(case.on_the_stock_agent()?.filter(|case| case.runs("endpoint")));
        }
    }
    let (api, id) = (stock.api(), stock.id());
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let ran = match send(api, id, case, number).await? {
            Some(command_id) => check_remote(api, id, case, &command_id).await,
            None => Ok(()),
        };
        wrong.extend(ran.err().map(|error| format!("{}: {error:#}", case.name())));
    }
    ensure!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
    Ok(())
}
