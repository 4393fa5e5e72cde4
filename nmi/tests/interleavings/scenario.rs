//! What runs: the programs, vmcs12, and the machines that run them.

use crate::hw::{Controls, Inject, Log, Op, Programs};
use Op::*;

#[derive(Clone, Copy, Debug)]
pub struct Vmcs12 {
    pub controls: Controls,
    pub blocking: bool,
    pub inject: Inject,
}

impl Default for Vmcs12 {
    fn default() -> Self {
        Vmcs12 {
            controls: Controls::default(),
            blocking: false,
            inject: Inject::Nothing,
        }
    }
}

pub struct Scenario {
    pub name: String,
    pub programs: Programs,
    pub controls: Controls,
    /// What L1 writes before its first entry.
    pub blocking: bool,
    pub inject: Inject,
}

impl Scenario {
    /// L1's VMWRITEs before the entry of that number.
    pub fn prepare(&self, entry: usize, vmcs12: &mut Vmcs12) {
        if entry == 0 {
            vmcs12.controls = self.controls;
            vmcs12.blocking = self.blocking;
            vmcs12.inject = self.inject;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Runs,
    /// Only an NMI can wake it.
    Waits,
    Ended,
}

pub trait Machine: Clone {
    fn arrive(&mut self);
    fn tick(&mut self) -> Result<Status, String>;
    fn log(&self) -> &[Log];
    /// Whether an NMI is still on its way at the end.
    fn holds_one(&self) -> bool;
}

fn l1_only(name: &str, main: &[Op], nmi: &[Op], delivery_faults: bool) -> Scenario {
    Scenario {
        name: format!("L1 {name}"),
        programs: Programs {
            main: [main.to_vec(), vec![]],
            nmi: [nmi.to_vec(), vec![]],
            delivery_faults: [delivery_faults, false],
        },
        controls: Controls::default(),
        blocking: false,
        inject: Inject::Nothing,
    }
}

/// Paths between L1 and L0 alone.
pub fn of_l1() -> Vec<Scenario> {
    let plain: &[Op] = &[Nop, Iret];
    vec![
        l1_only("exits", &[Nop, Cpuid, Nop, Cpuid, Nop, End], plain, false),
        l1_only(
            "handler exits",
            &[Cpuid, Nop, End],
            &[Nop, Cpuid, Iret],
            false,
        ),
        l1_only("exit under MOV SS", &[MovSs, Cpuid, Nop, End], plain, false),
        l1_only(
            "mended under MOV SS",
            &[MovSs, TouchFault, Nop, End],
            plain,
            false,
        ),
        l1_only("exit under STI", &[Sti, Cpuid, Nop, End], plain, false),
        l1_only(
            "mended under STI",
            &[Sti, TouchFault, Nop, End],
            plain,
            false,
        ),
        l1_only("HLT", &[Cpuid, Hlt, Nop, End], plain, false),
        l1_only(
            "mended HLT under STI",
            &[Sti, HltFault, Nop, End],
            plain,
            false,
        ),
        l1_only("exception by L0", &[Nop, Fault, Nop, End], plain, false),
        l1_only(
            "debug trap after exit",
            &[CpuidTf, Nop, Nop, End],
            plain,
            false,
        ),
        l1_only("mended IRET", &[Cpuid, Nop, End], &[Nop, IretFault], false),
        l1_only(
            "mended IRET in Main",
            &[Nop, IretFault, Nop, End],
            plain,
            false,
        ),
        l1_only("mended delivery", &[Nop, Cpuid, Nop, End], plain, true),
        l1_only(
            "MOV SS then mended IRET",
            &[MovSs, IretFault, Nop, End],
            plain,
            false,
        ),
    ]
}

const EXITS: [Controls; 5] = [
    Controls {
        nmi_exiting: false,
        virtual_nmis: false,
        nmi_window: false,
        mtf: false,
    },
    Controls {
        nmi_exiting: true,
        virtual_nmis: false,
        nmi_window: false,
        mtf: false,
    },
    Controls {
        nmi_exiting: true,
        virtual_nmis: true,
        nmi_window: false,
        mtf: false,
    },
    Controls {
        nmi_exiting: true,
        virtual_nmis: true,
        nmi_window: true,
        mtf: false,
    },
    Controls {
        nmi_exiting: false,
        virtual_nmis: false,
        nmi_window: false,
        mtf: true,
    },
];

/// Paths with L2: every policy, blocking and injection, over a few programs.
pub fn of_l2() -> Vec<Scenario> {
    // L1 after an exit: IRET (as an NMI handler entered by hand would end) or
    // straight back into L2 with NMIs as they are.
    let l1: [(&str, &[Op]); 2] = [
        (
            "L1 unblocks",
            &[Vmresume, Nop, Iret, Vmresume, Iret, Nop, End],
        ),
        (
            "L1 goes back blocked",
            &[Vmresume, Vmresume, Nop, Iret, Nop, End],
        ),
    ];
    let l2: [(&str, &[Op]); 5] = [
        ("exits", &[Nop, Cpuid, Nop, Cpuid]),
        ("mended under MOV SS", &[MovSs, TouchFault, Cpuid, Cpuid]),
        ("mended IRET", &[IretFault, Cpuid, Nop, Cpuid]),
        ("HLT under STI", &[Sti, HltFault, Cpuid, Cpuid]),
        ("exception", &[Fault, TouchFault, Cpuid, Cpuid]),
    ];
    let mut all = Vec::new();
    for controls in EXITS {
        for blocking in [false, true] {
            for inject in [
                Inject::Nothing,
                Inject::Event,
                Inject::Nmi,
                Inject::PendingMtf,
            ] {
                if inject == Inject::Nmi && blocking && controls.virtual_nmis {
                    continue; // fails VM entry
                }
                for (l1_name, l1_main) in l1 {
                    for (l2_name, l2_main) in l2 {
                        for delivery_faults in [false, true] {
                            all.push(Scenario {
                                name: format!(
                                    "{l1_name}, L2 {l2_name}, {controls:?}, blocking {blocking}, \
                                     injects {inject:?}, delivery faults {delivery_faults}"
                                ),
                                programs: Programs {
                                    main: [l1_main.to_vec(), l2_main.to_vec()],
                                    nmi: [vec![Nop, Iret], vec![Nop, IretFault]],
                                    delivery_faults: [false, delivery_faults],
                                },
                                controls,
                                blocking,
                                inject,
                            });
                        }
                    }
                }
            }
        }
    }
    all
}
