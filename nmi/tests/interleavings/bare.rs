//! The bare machine: L1 in VMX root operation, L2 below it.

use crate::hw::{Controls, Cpu, Event, Filled, Guest, Inject, Level, Log, Op, Place, Quirks};
use crate::scenario::{Machine, Scenario, Status, Vmcs12};

#[derive(Clone)]
pub struct Bare<'s> {
    scenario: &'s Scenario,
    cpu: Cpu,
    l1: Guest,
    l2: Guest,
    vmcs12: Vmcs12,
    entries: usize,
    in_l2: bool,
    log: Vec<Log>,
}

impl<'s> Bare<'s> {
    pub fn new(scenario: &'s Scenario, quirks: Quirks) -> Self {
        Bare {
            scenario,
            cpu: Cpu::new(quirks),
            l1: Guest::new(Level::L1),
            l2: Guest::new(Level::L2),
            vmcs12: Vmcs12::default(),
            entries: 0,
            in_l2: false,
            log: Vec::new(),
        }
    }

    fn exit_to_l1(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Exit(reason, saved) => {
                self.vmcs12.blocking = saved;
                self.vmcs12.inject = Inject::Nothing;
                self.cpu.virtually_blocked = false;
                self.in_l2 = false;
                self.log.push(Log::Exit(reason, saved, self.l2.shadow));
                Ok(())
            }
            Event::Went => Ok(()),
            other => Err(format!("L2: {other:?}")),
        }
    }
}

impl Machine for Bare<'_> {
    fn arrive(&mut self) {
        self.cpu.arrive();
    }

    fn log(&self) -> &[Log] {
        &self.log
    }

    fn holds_one(&self) -> bool {
        self.cpu.latch
    }

    fn tick(&mut self) -> Result<Status, String> {
        let programs = &self.scenario.programs;
        let filled = Filled::default();
        if self.in_l2 {
            let controls = self.vmcs12.controls;
            let (cpu, log) = (&mut self.cpu, &mut self.log);
            let event = cpu.step(
                &mut self.l2,
                controls,
                Place::BareL2,
                programs,
                &filled,
                log,
            );
            if event == Event::Waits {
                return Ok(Status::Waits);
            }
            self.exit_to_l1(event)?;
            return Ok(Status::Runs);
        }
        let (cpu, log) = (&mut self.cpu, &mut self.log);
        let controls = Controls::default();
        match cpu.step(
            &mut self.l1,
            controls,
            Place::BareL1,
            programs,
            &filled,
            log,
        ) {
            Event::Went => Ok(Status::Runs),
            Event::Waits => Ok(Status::Waits),
            Event::Ended => Ok(Status::Ended),
            Event::Exit(crate::hw::Reason::Instruction(Op::Vmresume), _) => {
                self.l1.retire(log);
                self.scenario.prepare(self.entries, &mut self.vmcs12);
                self.entries += 1;
                self.in_l2 = true;
                let vmcs12 = self.vmcs12;
                let event = cpu.enter(
                    &mut self.l2,
                    vmcs12.controls,
                    vmcs12.blocking,
                    vmcs12.inject,
                    Place::BareL2,
                    programs,
                    &filled,
                    log,
                )?;
                self.vmcs12.inject = Inject::Nothing;
                self.exit_to_l1(event)?;
                Ok(Status::Runs)
            }
            other => Err(format!("L1: {other:?}")),
        }
    }
}
