//! Replies beside those of the stock agent.

use proptest::prelude::*;

use super::*;

fn parse(payload: &str) -> (AgentJobReply, ReplyContent) {
    let reply: AgentJobReply = serde_json::from_str(payload).unwrap();
    let content = serde_json::from_str(&reply.content).unwrap();
    (reply, content)
}

fn outcome(stdout: &str) -> StepOutcome {
    StepOutcome {
        status: ResultStatus::Success,
        code: 0,
        stdout: stdout.to_owned(),
        stderr: String::new(),
        text: None,
    }
}

/// 2026-11-22T07:36:45.107Z
const NOW: u64 = 1_795_333_005_107;

#[test]
fn the_first_reply_is_the_stock_agents_byte_for_byte() {
    let expected = r#"{"schemaVersion":1,"jobId":"e88467be","content":"{\"additionalInfo\":{\"agent\":{\"lang\":\"en-US\",\"name\":\"amazon-ssm-agent\",\"os\":\"linux\",\"osver\":\"1\",\"ver\":\"VERSION\"},\"dateTime\":\"2026-11-22T07:36:45.107Z\",\"runId\":\"\",\"runtimeStatusCounts\":null},\"documentStatus\":\"InProgress\",\"documentTraceOutput\":\"\",\"runtimeStatus\":null}","topic":"aws.ssm.sendCommand"}"#;
    assert_eq!(
        in_progress("e88467be", false, NOW),
        expected.replace("VERSION", AGENT_VERSION)
    );
}

#[test]
fn the_end_of_a_document_with_one_step_repeats_the_step_and_others_have_none() {
    let step_reply = step_reply(outcome("early\n"), "aws:runShellScript", NOW, NOW);
    let counts = counts([ResultStatus::Success].into_iter());
    let single = end(
        "j",
        ResultStatus::Success,
        Some(("runShellScript", &step_reply)),
        counts.clone(),
        "",
        NOW,
    );
    let (_, content) = parse(&single.payload);
    assert_eq!(
        content.steps(),
        [("runShellScript".to_owned(), step_reply.clone())]
    );
    assert_eq!(
        content.additional_info.runtime_status_counts.unwrap(),
        [("Success".to_owned(), 1)].into()
    );
    let (_, content) = parse(&end("j", ResultStatus::Success, None, counts.clone(), "", NOW).payload);
    assert_eq!(content.runtime_status, Some(Map::new()));
    let (_, content) = parse(&step("j", "runShellScript", &step_reply, counts, NOW).payload);
    assert_eq!(content.document_status, ResultStatus::InProgress);
    assert_eq!(content.steps().len(), 1);
}

#[test]
fn a_failed_step_never_has_code_0() {
    let failed = StepOutcome {
        status: ResultStatus::Failed,
        ..outcome("")
    };
    assert_eq!(step_reply(failed, "a", NOW, NOW).code, 1);
}

#[test]
fn a_lost_worker_leaves_what_finished_and_says_that_the_rest_is_unknown() {
    let record = |name: &str, status| StepRecord {
        action: "aws:x".to_owned(),
        name: name.to_owned(),
        status,
    };
    let steps = [
        record("a", Some(ResultStatus::Success)),
        record("b", None),
        record("c", None),
    ];
    let conclusion = lost(
        "j",
        &steps,
        LOST,
        |name, position| (format!("{name}{position}"), String::new()),
        NOW,
    );
    assert_eq!(conclusion.status, ResultStatus::Failed);
    let contents: Vec<ReplyContent> = conclusion
        .replies
        .iter()
        .map(|reply| parse(&reply.payload).1)
        .collect();
    let told: Vec<(String, ResultStatus)> = contents
        .iter()
        .flat_map(ReplyContent::steps)
        .map(|(name, step)| (name, step.status))
        .collect();
    assert_eq!(
        told,
        [
            ("b".to_owned(), ResultStatus::Failed),
            ("c".to_owned(), ResultStatus::Cancelled)
        ]
    );
    let outputs: Vec<String> = contents
        .iter()
        .flat_map(ReplyContent::steps)
        .map(|(_, step)| step.standard_output)
        .collect();
    assert_eq!(outputs, ["b1", ""], "what the unknown step had written");
    let last = contents.last().unwrap();
    assert_eq!(last.document_status, ResultStatus::Failed);
    assert!(last.document_trace_output.contains("outcome is unknown"));
    assert_eq!(
        last.additional_info.runtime_status_counts.clone().unwrap(),
        [
            ("Cancelled".to_owned(), 1),
            ("Failed".to_owned(), 1),
            ("Success".to_owned(), 1)
        ]
        .into()
    );
    assert_eq!(
        conclusion.replies.iter().filter(|reply| reply.is_final).count(),
        1
    );
}

#[test]
fn output_that_grows_when_it_is_quoted_still_fits() {
    for character in ["\u{1}", "\"", "\\", "\u{7f}", "€"] {
        let outcome = StepOutcome {
            stderr: character.repeat(STREAM_BYTES),
            ..outcome(&character.repeat(STREAM_BYTES))
        };
        let step_reply = step_reply(outcome, "aws:runShellScript", NOW, NOW);
        let reply = step("j", "s", &step_reply, Counts::new(), NOW);
        assert!(
            reply.payload.len() <= MAX_PAYLOAD_BYTES,
            "{character:?}: {}",
            reply.payload.len()
        );
        let (_, content) = parse(&reply.payload);
        assert!(
            content
                .steps()
                .iter()
                .all(|(_, step)| step.standard_output.len() > 1_000)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_payload_is_larger_than_peers_take(
        stdout in proptest::collection::vec(any::<char>(), 0..25_000),
        name in ".{1,128}",
    ) {
        let stdout: String = stdout.into_iter().collect();
        let step_reply = step_reply(outcome(&stdout), "aws:runShellScript", NOW, NOW);
        let reply = step("j", &name, &step_reply, Counts::new(), NOW);
        prop_assert!(reply.payload.len() <= MAX_PAYLOAD_BYTES);
        let (_, content) = parse(&reply.payload);
        prop_assert_eq!(content.steps().len(), 1);
    }
}
