// SPDX-License-Identifier: GPL-2.0

//! What the kernel has said since the first run.

use crate::{
    child::Output,
    report::{Done, Verdict},
};

/// What the kernel log has where a run began.
pub const MARK: &str = "nvlink2-trial: begins";

/// By which the kernel says that it is broken.
const SPLATS: &str = include_str!("../../../tests/selftests/splats.txt");

/// What dmesg says of the kernel. A log that cannot be read, or that has lost its beginning, shows nothing.
pub fn judge(dmesg: &Output) -> Done {
    if !dmesg.success() {
        let why = format!("the kernel log cannot be read: dmesg: {}", dmesg.err.trim());
        return Done::new(Verdict::Failed, why).with_text("dmesg", dmesg.text());
    }
    let begin = dmesg.out.split_once(MARK).map(|(_, since)| since);
    let since = begin.unwrap_or(&dmesg.out);
    let mut done = Done::new(Verdict::Passed, "the kernel complains of nothing");
    done.wrong = since
        .lines()
        .filter(|line| SPLATS.lines().any(|sign| line.contains(sign)))
        .map(str::to_owned)
        .collect();
    if begin.is_none() {
        done.wrong.push(format!(
            "the kernel log does not have '{MARK}' any more, so what was said first is lost: boot with a larger log_buf_len"
        ));
    }
    if let Some(first) = done.wrong.first() {
        done.verdict = Verdict::Failed;
        done.summary.clone_from(first);
    }
    done.with_text("kernel log", since.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: i32, out: &str) -> Done {
        judge(&Output {
            out: out.to_owned(),
            err: "dmesg: read kernel buffer failed: Operation not permitted\n".to_owned(),
            status: Some(status),
        })
    }

    #[test]
    fn a_log_that_is_not_there_shows_nothing() {
        let good = format!("WARNING: of old\n{MARK}\nnvlink2-vfio-pci 0004:04:00.0: fine\n");
        let done = of(0, &good);
        assert_eq!((done.verdict, done.wrong.len()), (Verdict::Passed, 0));
        assert!(!done.texts["kernel log"].contains("of old"));

        for (status, out, first) in [
            (
                1,
                good.as_str(),
                "cannot be read: dmesg: dmesg: read kernel buffer failed",
            ),
            (1, "", "cannot be read"),
            (0, "", "is lost"),
            (0, "nvlink2-vfio-pci 0004:04:00.0: fine\n", "is lost"),
            (0, "WARNING: CPU: 3\n", "WARNING: CPU: 3"),
            (0, &format!("{good}WARNING: CPU: 3\n"), "WARNING: CPU: 3"),
        ] {
            let done = of(status, out);
            assert_eq!(done.verdict, Verdict::Failed, "{out}");
            assert!(done.summary.contains(first), "{}", done.summary);
        }
    }
}
