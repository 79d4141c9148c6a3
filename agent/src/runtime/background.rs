//! A thread whose work has time.

use nix::libc;

/// From here on the calling thread gets less of the processor than others that want it, and of the disk where its
/// scheduler knows an order: Linux derives that from the same number.
pub(crate) fn yield_to_others() {
    // A third of the usual share where all others are busy: less would be next to nothing for hours on such a machine.
    const NICE: libc::c_int = 5;
    #[expect(unsafe_code, reason = "setpriority has no safe wrapper")]
    // SAFETY: it takes numbers only; on Linux the 0 means the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    if result != 0 {
        tracing::debug!(errno = %nix::errno::Errno::last(), "priority not lowered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_asks_yields() {
        let own = || -> i32 {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields = stat.rsplit_once(')').unwrap().1;
            fields.split_ascii_whitespace().nth(16).unwrap().parse().unwrap()
        };
        let before = own();
        let lowered = std::thread::spawn(move || {
            yield_to_others();
            own()
        });
        assert_eq!(lowered.join().unwrap(), 5);
        assert_eq!(own(), before);
    }
}
