// SPDX-License-Identifier: GPL-2.0

//! Who an administrator has to turn to.
//!
//! C header: `include/linux/sched.h`

use crate::linux::bindings;
use core::{
    ffi::CStr,
    fmt, //
};
use kernel::{
    current,
    sync::aref::ARef,
    task::Task, //
};

/// A process, which may have ended. Displays as `process 4711 (qemu-system-ppc)`, by its number in
/// the initial PID namespace.
#[derive(Clone)]
pub(crate) struct Process(ARef<Task>);

impl Process {
    /// Returns the one that made this system call.
    pub(crate) fn current() -> Self {
        Self(ARef::from(current!().group_leader()))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = [0; bindings::NVLINK2_COMM_LEN as usize];
        // SAFETY: The task is valid, and the buffer as long as the helper expects.
        let ended = unsafe {
            bindings::nvlink2_task_name(self.0.as_ptr(), name.as_mut_ptr());
            bindings::nvlink2_task_has_ended(self.0.as_ptr())
        };
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();

        write!(
            f,
            "process {} ({}){}",
            self.0.tgid(),
            name.to_str().unwrap_or("?"),
            // Somebody else may have its number by now.
            if ended { ", which has ended" } else { "" }
        )
    }
}
