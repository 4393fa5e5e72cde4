//! What is measured: the runs, the machines they are made on, and the rows that each run prints.

/// A run of a guest that prints rows.
pub struct Run {
    /// What a person calls it.
    pub name: &'static str,
    /// The guest and the options of `./x run`.
    pub words: &'static [&'static str],
}

/// Every run.
pub const RUNS: &[Run] = &[
    Run {
        name: "machine",
        words: &["bench"],
    },
    Run {
        name: "cpus",
        words: &["bench", "--append=cpus", "--cpus=4"],
    },
    Run {
        name: "kvm",
        words: &["kvm", "--append=bench=1"],
    },
];

/// What stands below the guest.
pub struct Column {
    /// Its name in the table's file and on the command line.
    pub name: &'static str,
    /// Its heading.
    pub heading: &'static str,
    /// The options of `./x run`.
    pub words: &'static [&'static str],
    /// Whether it is measured where no column is named.
    pub is_default: bool,
}

/// Every column, the one that others are compared with first.
pub const COLUMNS: &[Column] = &[
    Column {
        name: "native",
        heading: "bare machine",
        words: &["--native"],
        is_default: true,
    },
    Column {
        name: "umbra",
        heading: "Umbra",
        words: &["--depth=1"],
        is_default: true,
    },
    Column {
        name: "umbra2",
        heading: "two Umbras",
        words: &["--depth=2"],
        is_default: true,
    },
    Column {
        name: "kvm",
        heading: "KVM",
        words: &["--native", "--on=kvm"],
        is_default: false,
    },
];

/// A row: the run that prints it, its name, and what one turn of it is.
pub struct Row {
    /// The name of the [`Run`].
    pub run: &'static str,
    /// The name in the line that the guest prints.
    pub name: &'static str,
    /// What its ticks are for.
    pub about: &'static str,
}

const fn row(run: &'static str, name: &'static str, about: &'static str) -> Row {
    Row { run, name, about }
}

/// Every row, in the order of the table.
pub const ROWS: &[Row] = &[
    row("machine", "exit-bare", "L2 CPUID, L1 VMRESUME"),
    row(
        "machine",
        "exit-skip",
        "the same, L1 does 2 VMREADs and 1 VMWRITE",
    ),
    row("machine", "exit-skip-invept", "the same with INVEPT"),
    row("machine", "vmread", "L1 VMREAD of RIP"),
    row("machine", "vmread-rare", "L1 VMREAD of a host field"),
    row("machine", "vmwrite", "L1 VMWRITE of RIP"),
    row("machine", "vmwrite-rare", "L1 VMWRITE of a host field"),
    row("machine", "cpuid", "L1 CPUID"),
    row("machine", "invept", "L1 INVEPT, one context"),
    row("machine", "invvpid", "L1 INVVPID, one context"),
    row("machine", "vmptrld", "L1 VMPTRLD of another VMCS"),
    row(
        "machine",
        "vmclear-current",
        "L1 VMCLEAR of the current VMCS",
    ),
    row("machine", "vmptrld-cleared", "L1 VMPTRLD of a cleared VMCS"),
    row(
        "machine",
        "vmcs12s-1",
        "a round trip, 1 VMCS: VMPTRLD, VMRESUME, L2 CPUID",
    ),
    row("machine", "vmcs12s-2", "the same, 2 VMCSs in turn"),
    row("machine", "vmcs12s-4", "the same, 4 in turn"),
    row("machine", "vmcs12s-8", "the same, 8 in turn"),
    row("machine", "vmcs12s-9", "the same, 9 in turn"),
    row("machine", "vmcs12s-16", "the same, 16 in turn"),
    row("machine", "vmcs12s-32", "the same, 32 in turn"),
    row("machine", "vmcs12s-64", "the same, 64 in turn"),
    row(
        "machine",
        "ept-violation",
        "L2 touches a page, L1 maps it, L2 goes on",
    ),
    row(
        "machine",
        "first-touch-4k",
        "L2 touches a page of ept12, neighbours touched",
    ),
    row(
        "machine",
        "first-touch-4k-apart",
        "the same, pages 64 KiB apart",
    ),
    row(
        "machine",
        "first-touch-4k-flags",
        "the same side by side, accessed flags to set",
    ),
    row(
        "machine",
        "first-write-4k-flags",
        "the same, dirty flags to set",
    ),
    row(
        "machine",
        "first-touch-4k-flags-set",
        "the same, flags set already",
    ),
    row(
        "machine",
        "exit-touch-1-invept",
        "L2 reads 1 page and exits, L1 INVEPT",
    ),
    row("machine", "exit-touch-32-invept", "the same, 32 pages"),
    row("machine", "exit-touch-64-invept", "the same, 64 pages"),
    row("machine", "exit-touch-32", "32 pages without INVEPT"),
    row(
        "machine",
        "pages-16",
        "a page of 16 that L2 reads behind INVEPT",
    ),
    row("machine", "pages-64", "a page of 64"),
    row("machine", "pages-256", "a page of 256"),
    row("machine", "pages-1024", "a page of 1,024"),
    row("machine", "pages-4096", "a page of 4,096"),
    row(
        "machine",
        "first-touch-64m-by-2m",
        "64 MiB read first, ept12 has 2 MiB pages",
    ),
    row("cpus", "cpus-1", "L2 CPUID, L1 VMRESUME, on 1 of 4 CPUs"),
    row("cpus", "cpus-2", "the same on 2 CPUs at a time"),
    row("cpus", "cpus-3", "on 3"),
    row("cpus", "cpus-4", "on 4"),
    row("kvm", "kvm-cpu", "50,000 instructions"),
    row("kvm", "kvm-first-touch", "first write to a page"),
    row("kvm", "kvm-fork-exec", "fork, exec, exit, wait"),
    row("kvm", "kvm-pipe", "a byte to another process and back"),
    row("kvm", "kvm-mmap-churn", "mmap, 16 pages touched, munmap"),
    row("kvm", "kvm-tmpfs", "a page to a file in memory and back"),
    row("kvm", "kvm-syscall", "a system call"),
    row("kvm", "kvm-timer", "a timer set and stopped"),
    row("kvm", "kvm-cpuid", "CPUID"),
    row("kvm", "kvm-port-write", "OUT to a port of QEMU's"),
    row("kvm", "kvm-disk-read", "4 KiB from a virtio disk"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_one_name_and_a_run() {
        for (n, row) in ROWS.iter().enumerate() {
            assert!(RUNS.iter().any(|run| run.name == row.run), "{}", row.name);
            assert!(
                ROWS[..n].iter().all(|other| other.name != row.name),
                "{}",
                row.name
            );
            // The table's page is written with `|` between columns.
            assert!(!row.about.contains('|'));
        }
    }
}
