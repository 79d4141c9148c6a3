//! What an endpoint does not take, and what memory hostile bytes cost.

use super::*;

fn refused(receiver: &mut Receiver, bytes: &[u8]) -> Refusal {
    receiver.push(bytes, |_| ()).unwrap_err()
}

#[test]
fn the_first_wrong_place_is_named_and_nothing_more_is_taken() {
    let site = Site::new();
    let records = [vec![output(0, "one")], vec![output(1, "two")]];
    let recording = site.recording(&records, false);
    let text = String::from_utf8(recording).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let length_of = |count: usize| lines[..count].concat().len() as u64;

    let altered = text.replace("two", "TWO");
    let mut receiver = site.receiver();
    let mut seals = 0;
    let refusal = receiver.push(altered.as_bytes(), |_| seals += 1).unwrap_err();
    let expected = Refusal {
        record: 2,
        offset: length_of(4),
        fault: Fault::RecordHash,
    };
    assert_eq!((refusal, seals), (expected, 1));
    assert_eq!(refused(&mut receiver, b"anything"), expected);

    for (altered, record, offset, fault) in [
        (lines[1..].concat(), 1, 0, Fault::Header(HeaderError::Json)),
        (
            text.replace("one", "o\u{0}e"),
            1,
            length_of(1),
            Fault::Form(FormError::Event),
        ),
        (
            text.replacen("seal 1", "seal 3", 1),
            1,
            length_of(2),
            Fault::SealSignature,
        ),
        (
            [lines[0], lines[1], lines[3], lines[4]].concat(),
            1,
            length_of(2) + lines[3].len() as u64,
            Fault::SealNumber {
                found: 2,
                expected: 1,
            },
        ),
        (
            [lines[0], lines[1], lines[2], lines[2]].concat(),
            2,
            length_of(3),
            Fault::SealNumber {
                found: 1,
                expected: 2,
            },
        ),
    ] {
        let refusal = refused(&mut site.receiver(), altered.as_bytes());
        assert_eq!(
            refusal,
            Refusal {
                record,
                offset,
                fault
            }
        );
    }
}

#[test]
fn another_recording_another_node_and_another_key_are_refused() {
    let site = Site::new();
    let recording = site.recording(&[vec![output(0, "x")]], false);
    let keys = vec![site.node.public()];
    let other = RecordingId::parse("mallory-1").unwrap();
    let mut receiver = Receiver::new(other, NODE.to_owned(), keys.clone());
    assert_eq!(refused(&mut receiver, &recording).fault, Fault::OtherRecording);
    let mut receiver = Receiver::new(site.id.clone(), "mi-0fffffffffffffff0".to_owned(), keys);
    assert_eq!(refused(&mut receiver, &recording).fault, Fault::OtherRecording);
    let mut receiver = Receiver::new(site.id.clone(), NODE.to_owned(), vec![site.endpoint.public()]);
    assert_eq!(refused(&mut receiver, &recording).fault, Fault::UnknownNodeKey);
}

#[test]
fn a_node_writes_no_countersignatures() {
    let site = Site::new();
    let recording = site.recording(&[vec![output(0, "x")]], false);
    let lines = site.countersignatures(&recording, recording.len(), Ending::Complete);
    let export = weave(&recording, &lines, recording.len());
    assert_eq!(
        refused(&mut site.receiver(), &export).fault,
        Fault::CountersignedByNode
    );
}

#[test]
fn a_line_without_end_costs_bounded_memory() {
    let site = Site::new();
    let endless = vec![b'x'; 1024 * 1024];
    let mut receiver = site.receiver();
    receiver.push(site.header().to_line().as_bytes(), |_| ()).unwrap();
    let refusal = (0..9).find_map(|_| receiver.push(&endless, |_| ()).err());
    assert_eq!(refusal.map(|refusal| refusal.fault), Some(Fault::Overlong));

    let mut verifier = Verifier::new(site.keys());
    verifier.push(site.header().to_line().as_bytes());
    (0..20).for_each(|_| verifier.push(&endless));
    verifier.push(b"\n");
    let outcome = verifier.finish();
    let faults: Vec<_> = outcome.findings.iter().map(|one| (one.line, one.fault)).collect();
    assert_eq!(faults, [(2, Fault::Overlong), (3, Fault::NotClosed)]);
}

#[test]
fn clocks_that_go_back_or_apart_are_remarks_and_no_alteration() {
    let site = Site::new();
    let mut sealer = Sealer::new(site.id.clone());
    let mut receiver = site.receiver();
    let mut countersigner = Countersigner::new(site.id.clone(), site.endpoint.public().id(), 0, None);
    let mut recording = Vec::new();
    let mut signatures = Vec::new();
    for (line, node, endpoint) in [
        (site.header().to_line(), BEGAN, BEGAN + 301_000),
        (output(0, "x"), BEGAN - 10, BEGAN),
    ] {
        sealer.push(line.as_bytes());
        let seal = sealer
            .seal(Time::default(), node, |text| site.node.sign(text))
            .unwrap();
        let mut taken = None;
        let arrived = [line, seal].concat();
        receiver.push(arrived.as_bytes(), |at| taken = Some(at)).unwrap();
        recording.extend_from_slice(arrived.as_bytes());
        signatures
            .push(countersigner.countersign(&taken.unwrap(), endpoint, |text| site.endpoint.sign(text)));
    }
    let end = receiver.end().unwrap();
    signatures.push(countersigner.close(&end, BEGAN, Ending::Complete, |text| site.endpoint.sign(text)));
    let outcome = site.verify(&weave(&recording, &signatures, 50), 50);
    assert_eq!(outcome.verdict, Verdict::Intact(Ending::Complete));
    let remarks: Vec<_> = outcome
        .remarks
        .iter()
        .map(|one| (one.line, one.record, one.what))
        .collect();
    assert_eq!(
        remarks,
        [
            (3, 1, ClockRemark::Apart(301_000)),
            (5, 2, ClockRemark::NodeWentBack(10)),
            (6, 2, ClockRemark::EndpointWentBack(301_000)),
        ]
    );
}

#[test]
fn an_endpoint_goes_on_with_its_own_last_line() {
    let site = Site::new();
    let recording = site.recording(&[vec![output(0, "x")], vec![output(1, "y")]], false);
    let lines = site.countersignatures(&recording, 1, Ending::Complete);
    let mut positions = Vec::new();
    site.receiver().push(&recording, |at| positions.push(at)).unwrap();
    let key = site.endpoint.public().id();
    let mut resumed = Countersigner::new(site.id.clone(), key, 1, Some(&lines[0]));
    let Ok(Line::Endpoint(second)) = Line::parse(lines[1].as_bytes()) else {
        panic!("{}", lines[1]);
    };
    let again = resumed.countersign(&positions[1], second.unix_millis, |text| site.endpoint.sign(text));
    assert_eq!(again, lines[1]);
}
