//! Memory that only a start or a burst needed, given back. A node may hold hundreds of idle sessions.

use nix::libc;

/// Gives free heap and the pages of program text back to the operating system. Text that is needed again is mapped
/// again from the page cache, a few microseconds for each piece; so this is for a process that is about to rest.
pub(crate) fn shrink() {
    give_back_heap();
    match std::fs::read_to_string("/proc/self/maps") {
        Ok(maps) => maps.lines().filter_map(text_mapping).for_each(give_back_text),
        Err(error) => tracing::debug!(%error, "memory not given back"),
    }
}

#[cfg(target_env = "gnu")]
fn give_back_heap() {
    #[expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]
    // SAFETY: it touches free memory of the allocator only, under the allocator's own lock.
    let _whether_there_was_any = unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn give_back_heap() {}

/// Address range of program text: executable, not writable, private, from a file.
fn text_mapping(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()? != "r-xp" || !fields.nth(3)?.starts_with('/') {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
}

fn give_back_text((start, end): (usize, usize)) {
    let length = end.saturating_sub(start);
    let start = std::ptr::with_exposed_provenance_mut(start);
    #[expect(unsafe_code, reason = "madvise works on addresses")]
    // SAFETY: the range is a private mapping of a file that nobody can write to through it, so each of its pages is
    // the file's; without the pages the same bytes are there, mapped again when they are touched.
    let result = unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    if result != 0 {
        tracing::debug!(errno = %nix::errno::Errno::last(), "text not given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_program_text_from_files_is_given_back() {
        let text = "55e0a000-55e0b000 r-xp 00001000 08:01 131 /usr/bin/moorline-agent";
        assert_eq!(text_mapping(text), Some((0x55e0_a000, 0x55e0_b000)));
        for other in [
            "55e0a000-55e0b000 r--p 00001000 08:01 131 /usr/bin/moorline-agent",
            "55e0a000-55e0b000 rw-p 00001000 08:01 131 /usr/bin/moorline-agent",
            "7ffc1000-7ffc3000 r-xp 00000000 00:00 0 [vdso]",
            "7f001000-7f003000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(text_mapping(other), None, "{other}");
        }
    }

    #[test]
    fn a_process_goes_on_after_giving_its_memory_back() {
        let before: Vec<u32> = (0..100_000).collect();
        shrink();
        assert_eq!(before.iter().map(|n| u64::from(*n)).sum::<u64>(), 4_999_950_000);
    }
}
