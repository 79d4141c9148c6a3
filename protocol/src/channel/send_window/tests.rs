use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A window of messages with the given sizes, sent at 0.
fn sent(sizes: &[usize]) -> (SendWindow, Rtt) {
    let mut window = SendWindow::default();
    for (number, &size) in sizes.iter().enumerate() {
        window.push(Bytes::from(vec![u8::try_from(number).unwrap()]), size);
    }
    while window.transmit(Duration::ZERO).is_some() {}
    (window, Rtt::new())
}

fn transmitted(window: &mut SendWindow, now: Duration) -> Vec<u8> {
    std::iter::from_fn(|| window.transmit(now)).flatten().collect()
}

#[test]
fn only_the_head_is_sent_again() {
    let (mut window, rtt) = sent(&[1, 1, 1]);
    assert_eq!(window.due(&rtt), Some(ms(200)));
    window.timeout(ms(199), &rtt);
    assert_eq!(transmitted(&mut window, ms(199)), [0_u8; 0]);
    window.timeout(ms(200), &rtt);
    assert_eq!(window.due(&rtt), None);
    assert_eq!(transmitted(&mut window, ms(200)), [0]);
    assert_eq!(window.due(&rtt), Some(ms(400)));
}

#[test]
fn checks_are_at_multiples_of_a_tenth_of_a_second() {
    let mut window = SendWindow::default();
    let rtt = Rtt::new();
    window.push(Bytes::new(), 0);
    assert_eq!(window.due(&rtt), None);
    window.transmit(ms(1001)).unwrap();
    assert_eq!(window.due(&rtt), Some(ms(1300)));
}

/// The heads that follow a lost one are overdue, and yet go out one at a time.
#[test]
fn one_repetition_in_each_interval() {
    let (mut window, mut rtt) = sent(&[1, 1, 1]);
    window.timeout(ms(500), &rtt);
    assert_eq!(transmitted(&mut window, ms(500)), [0]);
    window.acknowledge(0, ms(510), &mut rtt);
    rtt = Rtt::new();
    assert_eq!(window.due(&rtt), Some(ms(600)));
    window.timeout(ms(600), &rtt);
    assert_eq!(transmitted(&mut window, ms(600)), [1]);
}

#[test]
fn an_acknowledgement_is_of_one_message() {
    let (mut window, mut rtt) = sent(&[10, 20, 30]);
    assert_eq!(
        (window.span(), window.span_bytes(), window.unacknowledged_bytes()),
        (3, 60, 60)
    );
    window.acknowledge(1, ms(50), &mut rtt);
    assert_eq!(
        (window.span(), window.span_bytes(), window.unacknowledged_bytes()),
        (3, 60, 40)
    );
    for unknown in [1, 3, -1, i64::MAX] {
        window.acknowledge(unknown, ms(50), &mut rtt);
    }
    assert_eq!(rtt.timeout(), Duration::from_micros(143_750), "one sample");
    window.acknowledge(0, ms(50), &mut rtt);
    assert_eq!(
        (window.span(), window.span_bytes(), window.unacknowledged_bytes()),
        (1, 30, 30)
    );
    window.acknowledge(2, ms(50), &mut rtt);
    assert_eq!(
        (window.span(), window.span_bytes(), window.unacknowledged_bytes()),
        (0, 0, 0)
    );
    assert_eq!(window.due(&rtt), None);
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    let (mut window, mut rtt) = sent(&[1]);
    window.push(Bytes::from_static(&[7]), 1);
    window.acknowledge(1, ms(1), &mut rtt);
    assert_eq!(transmitted(&mut window, ms(1)), [7]);
}

#[test]
fn an_acknowledged_head_is_not_repeated() {
    let (mut window, mut rtt) = sent(&[1, 1]);
    window.timeout(ms(200), &rtt);
    window.acknowledge(0, ms(200), &mut rtt);
    assert_eq!(transmitted(&mut window, ms(200)), [0_u8; 0]);
}

#[test]
fn a_new_connection_repeats_everything_in_order() {
    let (mut window, mut rtt) = sent(&[1, 1, 1]);
    window.acknowledge(1, ms(100), &mut rtt);
    let timeout = rtt.timeout();
    window.rewind();
    window.push(Bytes::from_static(&[3]), 1);
    assert_eq!(window.due(&rtt), None);
    assert_eq!(transmitted(&mut window, ms(5000)), [0, 2, 3]);
    // of which connection this acknowledgement is, nobody knows
    window.acknowledge(0, ms(5001), &mut rtt);
    assert_eq!(rtt.timeout(), timeout);
    window.acknowledge(3, ms(5300), &mut rtt);
    assert_ne!(rtt.timeout(), timeout);
}

/// Where every message is at first sent again before its acknowledgement arrives.
#[test]
fn learns_a_path_slower_than_the_timeout() {
    let path = ms(700);
    let mut window = SendWindow::default();
    let mut rtt = Rtt::new();
    let mut repetitions = Vec::new();
    for number in 0..8 {
        let start = ms(10_000 * number);
        window.push(Bytes::new(), 1);
        window.transmit(start).unwrap();
        let mut count = 0;
        while let Some(due) = window.due(&rtt).filter(|due| *due < start + path) {
            window.timeout(due, &rtt);
            window.transmit(due).unwrap();
            count += 1;
        }
        repetitions.push(count);
        window.acknowledge(i64::try_from(number).unwrap(), start + path, &mut rtt);
    }
    assert_eq!(repetitions, [3, 0, 0, 0, 0, 0, 0, 0]);
}
