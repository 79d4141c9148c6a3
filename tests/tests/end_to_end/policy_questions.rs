//! Plans ask nodes what their owners make of a command: also those that cannot answer, or do not.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use moorline_protocol::message::{MessageType, PolicyQuestion};
use moorline_tests::{CapturedRun, Cli, Endpoint, StockAgent, StockChannel};
use serde_json::json;

use crate::stock_agent::{REGISTER, ROLE_TOKEN, channel_post, wait_connected};

/// The endpoint gives a node so long to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// An agent of this protocol that is connected, and says whether it answers questions.
async fn connected<'a>(
    endpoint: &'a Endpoint,
    answers: Option<bool>,
) -> Result<(StockAgent<'a>, StockChannel)> {
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(endpoint, run.operation(REGISTER)?).await?;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    let ping = run.operation("AmazonSSM.UpdateInstanceInformation")?;
    agent.replay(ping).await?;
    let post = channel_post(&run, "control")?;
    let channel = agent.open_control_channel_saying(post, answers).await?;
    wait_connected(endpoint, &agent.instance_id).await?;
    Ok((agent, channel))
}

/// What a dry run says of a node's policy.
async fn planned(endpoint: &Endpoint, node: &str) -> Result<(String, String)> {
    let words = ["run", "--node", node, "--dry-run", "--json", "--", "true"];
    let plan = Cli::of(endpoint).run(&words).await?.success()?.json()?;
    let node = &plan["Nodes"][0];
    let text = |member: &str| node[member].as_str().unwrap_or_default().to_owned();
    Ok((text("Policy"), text("PolicyReason")))
}

#[tokio::test]
async fn a_plan_says_at_once_that_a_stock_agent_cannot_be_asked() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let (agent, mut channel) = connected(&endpoint, None).await?;
    // a busy machine may be slow at times; an agent that is waited for is so each time
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let (policy, reason) = planned(&endpoint, &agent.instance_id).await?;
        fastest = fastest.min(began.elapsed());
        ensure!(
            policy == "NotKnown" && reason == "its agent cannot be asked: it knows no such question",
            "{policy}: {reason}"
        );
        if fastest < PATIENCE {
            break;
        }
    }
    ensure!(fastest < PATIENCE, "it was waited for: {fastest:?}");
    // nor has it got a frame that it does not know: the next one is that of a command
    let node = agent.instance_id.as_str();
    let words = ["run", "--node", node, "--detach", "--", "true"];
    Cli::of(&endpoint).run(&words).await?.success()?;
    let next = channel.receive_any().await?;
    ensure!(next.message_type == MessageType::AgentJob, "{next:?}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_does_not_answer_holds_a_plan_for_a_few_seconds_and_no_other_answer_is_its() -> Result<()>
{
    let endpoint = Endpoint::start().await?;
    let (agent, mut channel) = connected(&endpoint, Some(true)).await?;
    let asking = planned(&endpoint, &agent.instance_id);
    let answering = async {
        let frame = channel.receive(&MessageType::MoorlinePolicyQuestion).await?;
        let question: PolicyQuestion = serde_json::from_slice(&frame.payload)?;
        let of_another =
            json!({"QuestionId": question.question_id + 1, "IsAllowed": true, "Reason": "so it is"});
        channel
            .send_json(MessageType::MoorlinePolicyAnswer, &of_another)
            .await?;
        Ok::<_, anyhow::Error>(())
    };
    let began = Instant::now();
    let (said, answered) = tokio::join!(asking, answering);
    answered?;
    let (policy, reason) = said?;
    ensure!(
        policy == "NotKnown" && reason == "it has not answered within 5 s",
        "{policy}: {reason}"
    );
    ensure!(began.elapsed() < PATIENCE * 4, "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_node_that_goes_away_while_it_is_asked_holds_no_plan() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let (agent, mut channel) = connected(&endpoint, Some(true)).await?;
    let asking = planned(&endpoint, &agent.instance_id);
    let leaving = async {
        channel.receive(&MessageType::MoorlinePolicyQuestion).await?;
        drop(channel);
        Ok::<_, anyhow::Error>(())
    };
    let (said, left) = tokio::join!(asking, leaving);
    left?;
    let (policy, reason) = said?;
    ensure!(
        policy == "NotKnown" && reason == "not connected",
        "{policy}: {reason}"
    );
    Ok(())
}
