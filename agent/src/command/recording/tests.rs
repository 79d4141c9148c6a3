use super::*;

/// On a disk that takes nothing: where the spools would be is a file.
fn recording(dir: &Path) -> CommandRecording {
    std::fs::write(dir.join("spool"), "").unwrap();
    let content = serde_json::from_value(json!({
        "CommandId": "c1",
        "DocumentName": "AWS-RunShellScript",
        "DocumentContent": {},
        "MoorlineTranscriptPath": "/v1/transcript/c1",
    }));
    let wish = Wish {
        command_id: "c1",
        node: "mi-0123456789abcdef0",
        reboots: 0,
        follows: None,
        content: &content.unwrap(),
        document: None,
        state_dir: dir,
        config: &TranscriptConfig::default(),
        seals: false,
        is_moorline: true,
    };
    CommandRecording::begin(&wish, || ()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_end_that_a_full_disk_does_not_take_is_waited_with_for_five_minutes_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let recording = recording(dir.path());
    recording.finish(ResultStatus::Success);
    let begun = tokio::time::Instant::now();
    recording.deliver_end().await;
    let waited = begun.elapsed();
    assert!(
        waited >= END_PATIENCE && waited < END_PATIENCE + 2 * END_PAUSE,
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_is_there_as_soon_as_the_disk_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let recording = recording(dir.path());
    recording.finish(ResultStatus::Success);
    let begun = tokio::time::Instant::now();
    let makes_room = async {
        sleep(END_PATIENCE / 2).await;
        std::fs::remove_file(dir.path().join("spool")).unwrap();
    };
    tokio::join!(recording.deliver_end(), makes_room);
    assert!(begun.elapsed() < END_PATIENCE, "{:?}", begun.elapsed());
    assert!(dir.path().join("spool/c1.mi-0123456789abcdef0.whole").exists());
}
