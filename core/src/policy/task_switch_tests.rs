use super::*;
use std::vec;
use std::vec::Vec;

/// Linear memory from 0 on.
struct Bytes(Vec<u8>, Option<u32>);

impl LinearMemory for Bytes {
    fn read(&mut self, linear: u32, bytes: &mut [u8]) -> Result<(), Exception> {
        let at = linear as usize;
        let end = at + bytes.len();
        let from = self
            .0
            .get(at..end)
            .ok_or(Exception::with_code(vector::PF, 0))?;
        bytes.copy_from_slice(from);
        Ok(())
    }
    fn write(&mut self, linear: u32, bytes: &[u8]) -> Result<(), Exception> {
        let at = linear as usize;
        let end = at + bytes.len();
        let to = self.0.get_mut(at..end).ok_or(Exception::with_code(14, 2))?;
        to.copy_from_slice(bytes);
        Ok(())
    }
    fn load_cr3(&mut self, value: u32) -> Result<(), Exception> {
        self.1 = Some(value);
        Ok(())
    }
}

const GDT: u32 = 0x1000;
const OLD: u32 = 0x2000;
const NEW: u32 = 0x3000;
const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const OLD_TSS: u16 = 0x18;
const NEW_TSS: u16 = 0x20;
const LDT: u16 = 0x28;

impl Bytes {
    fn word(&self, at: u32) -> u32 {
        let at = at as usize;
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
    fn put(&mut self, at: u32, value: u32) {
        self.write(at, &value.to_le_bytes()).expect("in range");
    }
    fn kind(&self, selector: u16) -> u8 {
        self.0[(GDT + u32::from(selector) + 5) as usize]
    }
    fn descriptor(&mut self, selector: u16, value: u64) {
        let at = GDT + u32::from(selector);
        self.write(at, &value.to_le_bytes()).expect("in range");
    }
}

fn tss(base: u32, kind: u64) -> u64 {
    0x67 | u64::from(base) << 16 | kind << 40 | 0x80 << 40
}

/// A machine in the old task, with a complete new TSS.
fn machine() -> (Bytes, Task) {
    let mut memory = Bytes(vec![0; 0x8000], None);
    memory.descriptor(CODE, 0x00cf_9a00_0000_ffff);
    memory.descriptor(DATA, 0x00cf_9200_0000_ffff);
    memory.descriptor(OLD_TSS, tss(OLD, 0xb));
    memory.descriptor(NEW_TSS, tss(NEW, 9));
    memory.descriptor(LDT, 0x0000_8200_4000_0fff);
    memory.put(NEW + 0x1c, 0x7000);
    memory.put(NEW + 0x20, 0x1234);
    memory.put(NEW + 0x24, 0x202);
    for n in 0..8 {
        memory.put(NEW + 0x28 + 4 * n, 0x100 * (n + 1));
    }
    for n in 0..6 {
        let selector = if n == 1 { CODE } else { DATA };
        memory.put(NEW + 0x48 + 4 * n, u32::from(selector));
    }
    memory.put(NEW + 0x60, u32::from(LDT));
    let flat = |selector, rights| Segment {
        selector,
        base: 0,
        limit: u32::MAX,
        rights,
    };
    let mut segments = [flat(DATA, 0xc093); 6];
    segments[CS] = flat(CODE, 0xc09b);
    let task = Task {
        eip: 0x500,
        eflags: 0x4002,
        gprs: [1, 2, 3, 4, 5, 6, 7, 8],
        segments,
        ldtr: Segment::unusable(0),
        tr: Segment {
            selector: OLD_TSS,
            base: OLD,
            limit: 0x67,
            rights: 0x8b,
        },
        has_paging: true,
    };
    (memory, task)
}

fn request(source: Source) -> Switch {
    Switch {
        selector: NEW_TSS,
        source,
        gdt: (GDT, 0x2f),
        old_eip: 0x505,
        error_code: None,
    }
}

#[test]
fn a_call_nests() {
    let (mut memory, mut task) = machine();
    let done = switch(&mut memory, &mut task, &request(Source::Call));
    assert_eq!((done.is_committed, done.exception), (true, None));
    assert_eq!(memory.word(OLD + 0x20), 0x505);
    assert_eq!(memory.word(OLD + 0x24), 0x4002);
    assert_eq!(memory.word(OLD + 0x34), 4);
    assert_eq!(memory.word(OLD + 0x4c), u32::from(CODE));
    assert_eq!(memory.word(NEW) & 0xffff, u32::from(OLD_TSS));
    assert_eq!((memory.kind(OLD_TSS), memory.kind(NEW_TSS)), (0x8b, 0x8b));
    assert_eq!((task.eip, task.eflags), (0x1234, 0x4202));
    assert_eq!(task.gprs[0], 0x100);
    assert_eq!(task.tr.selector, NEW_TSS);
    assert_eq!((task.ldtr.base, task.ldtr.limit), (0x4000, 0xfff));
    assert_eq!(memory.1, Some(0x7000));
    assert_eq!(task.segments[CS].rights, 0xc09b);
    // The accessed bits were set in the table.
    assert_eq!((memory.kind(CODE), memory.kind(DATA)), (0x9b, 0x93));
}

#[test]
fn a_jump_and_an_iret_leave_for_good() {
    let (mut memory, mut task) = machine();
    let done = switch(&mut memory, &mut task, &request(Source::Jmp));
    assert_eq!(done.exception, None);
    assert_eq!((memory.kind(OLD_TSS), memory.kind(NEW_TSS)), (0x89, 0x8b));
    assert_eq!(task.eflags, 0x202);

    let (mut memory, mut task) = machine();
    memory.descriptor(NEW_TSS, tss(NEW, 0xb));
    let done = switch(&mut memory, &mut task, &request(Source::Iret));
    assert_eq!(done.exception, None);
    assert_eq!((memory.kind(OLD_TSS), memory.kind(NEW_TSS)), (0x89, 0x8b));
    assert_eq!(memory.word(OLD + 0x24), 2, "NT is gone from the old task");
}

#[test]
fn a_bad_tss_leaves_the_old_task() {
    let cases: [(u64, Source, Exception); 6] = [
        (
            tss(NEW, 0xb),
            Source::Call,
            Exception::of_selector(vector::GP, NEW_TSS),
        ),
        (
            tss(NEW, 9),
            Source::Iret,
            Exception::of_selector(vector::TS, NEW_TSS),
        ),
        (
            tss(NEW, 9) & !(1 << 47),
            Source::Jmp,
            Exception::of_selector(vector::NP, NEW_TSS),
        ),
        (
            tss(NEW, 9) - 1,
            Source::Jmp,
            Exception::of_selector(vector::TS, NEW_TSS),
        ),
        (
            tss(NEW, 2),
            Source::Gate,
            Exception::of_selector(vector::GP, NEW_TSS),
        ),
        (
            tss(0xff_0000, 9),
            Source::Call,
            Exception::with_code(vector::PF, 0),
        ),
    ];
    for (descriptor, source, exception) in cases {
        let (mut memory, mut task) = machine();
        let before = task;
        memory.descriptor(NEW_TSS, descriptor);
        let done = switch(&mut memory, &mut task, &request(source));
        assert_eq!(
            (done.is_committed, done.exception),
            (false, Some(exception))
        );
        assert_eq!(task, before);
    }
    for selector in [0, 0x30, 0x24] {
        let (mut memory, mut task) = machine();
        let request = Switch {
            selector,
            ..request(Source::Call)
        };
        let done = switch(&mut memory, &mut task, &request);
        assert_eq!(
            done.exception,
            Some(Exception::of_selector(vector::GP, selector))
        );
    }
}

#[test]
fn a_bad_segment_belongs_to_the_new_task() {
    // Offset of the selector in the TSS, selector, what comes of it.
    let cases: [(u32, u16, Option<Exception>); 8] = [
        (0x4c, 0, Some(Exception::of_selector(vector::TS, 0))),
        (0x4c, DATA, Some(Exception::of_selector(vector::TS, DATA))),
        (
            0x4c,
            CODE | 1,
            Some(Exception::of_selector(vector::TS, DATA)),
        ),
        (0x50, CODE, Some(Exception::of_selector(vector::TS, CODE))),
        (
            0x50,
            DATA | 3,
            Some(Exception::of_selector(vector::TS, DATA)),
        ),
        (0x54, 0, None),
        (0x54, 0x30, Some(Exception::of_selector(vector::TS, 0x30))),
        (0x60, DATA, Some(Exception::of_selector(vector::TS, DATA))),
    ];
    for (at, selector, exception) in cases {
        let (mut memory, mut task) = machine();
        memory.put(NEW + at, u32::from(selector));
        let done = switch(&mut memory, &mut task, &request(Source::Jmp));
        assert_eq!(
            (done.is_committed, done.exception),
            (true, exception),
            "{at:#x} {selector:#x}"
        );
        assert_eq!(task.eip, 0x1234);
    }
    for (selector, gone, exception) in [
        (
            DATA,
            0x00cf_1200_0000_ffff,
            Exception::of_selector(vector::SS, DATA),
        ),
        (
            CODE,
            0x00cf_1a00_0000_ffff,
            Exception::of_selector(vector::NP, CODE),
        ),
    ] {
        let (mut memory, mut task) = machine();
        memory.descriptor(selector, gone);
        let done = switch(&mut memory, &mut task, &request(Source::Jmp));
        assert_eq!(done.exception, Some(exception));
    }
}

#[test]
fn an_error_code_is_pushed() {
    let (mut memory, mut task) = machine();
    let request = Switch {
        error_code: Some(0xabc),
        ..request(Source::Gate)
    };
    let done = switch(&mut memory, &mut task, &request);
    assert_eq!(done.exception, None);
    assert_eq!(task.gprs[4], 0x500 - 4);
    assert_eq!(memory.word(0x500 - 4), 0xabc);
}

#[test]
fn virtual_8086_and_the_trap_flag_and_eip() {
    let (mut memory, mut task) = machine();
    memory.put(NEW + 0x24, 0x2_0002);
    memory.put(NEW + 0x4c, 0x1234);
    memory.put(NEW + 0x64, 1);
    let done = switch(&mut memory, &mut task, &request(Source::Jmp));
    assert_eq!((done.exception, done.has_debug_trap), (None, true));
    assert_eq!(task.segments[CS], Segment::virtual_8086(0x1234));

    let (mut memory, mut task) = machine();
    memory.descriptor(CODE, 0x0040_9a00_0000_1000);
    let done = switch(&mut memory, &mut task, &request(Source::Jmp));
    assert_eq!(done.exception, Some(Exception::of_selector(vector::GP, 0)));
}

#[test]
fn sixteen_bit_tasks() {
    let (mut memory, mut task) = machine();
    memory.descriptor(NEW_TSS, tss(NEW, 1));
    memory.0[NEW as usize..NEW as usize + 0x68].fill(0);
    for (at, value) in [
        (0xe, 0x1234u16),
        (0x10, 2),
        (0x12, 7),
        (0x24, CODE),
        (0x26, DATA),
    ] {
        memory
            .write(NEW + at, &value.to_le_bytes())
            .expect("in range");
    }
    let done = switch(&mut memory, &mut task, &request(Source::Jmp));
    assert_eq!(done.exception, None);
    assert_eq!((task.eip, task.gprs[0]), (0x1234, 0xffff_0007));
    assert_eq!(memory.1, None, "CR3 stays");
}

#[test]
fn reserved_flags_of_a_tss_stay_out_of_eflags() {
    for (image, flags) in [
        (0xa, 2),
        (0x22, 2),
        (0x8002, 2),
        (0x8000_0002, 2),
        (!EFLAGS_VM, 0x003d_7fd7),
        (0, 2),
    ] {
        let (mut memory, mut task) = machine();
        memory.put(NEW + 0x24, image);
        let done = switch(&mut memory, &mut task, &request(Source::Jmp));
        assert_eq!((done.exception, task.eflags), (None, flags), "{image:#x}");
    }
}

#[test]
fn the_delivery_of_an_event_sets_ext() {
    let ts = Exception::of_selector(vector::TS, NEW_TSS);
    for (vectoring, code) in [
        (0, 0x20),
        (0x8000_030e, 0x21),
        (0x8000_0030, 0x21),
        (0x8000_0202, 0x21),
        (0x8000_0501, 0x21),
        (0x8000_0430, 0x20),
        (0x8000_0603, 0x20),
    ] {
        assert_eq!(
            with_ext(ts, EventInfo::from_bits(vectoring)).error_code,
            Some(code)
        );
    }
    assert_eq!(
        with_ext(
            Exception::with_code(14, 2),
            EventInfo::from_bits(0x8000_030e)
        )
        .error_code,
        Some(2)
    );
}

/// Whatever the TSS and the descriptors hold: what a switch leaves is guest state that VM entry
/// accepts.
#[test]
fn a_new_task_is_always_one_that_vm_entry_accepts() {
    use umbra_vmcs::controls::{Entry, Proc, Proc2};
    use umbra_vmcs::field::{self, FieldSet, SegmentFields};
    use umbra_vmcs::rules::cases::Bench;
    use umbra_vmcs::rules::{Ctx, check_guest_state};

    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut bench = Bench::new();
    let proc2 = bench.vmcs.get(field::SECONDARY_PROCESSOR_BASED_CONTROLS)
        | u64::from((Proc2::ENABLE_EPT | Proc2::UNRESTRICTED_GUEST).bits());
    let entry =
        bench.vmcs.get(field::VM_ENTRY_CONTROLS) & !u64::from(Entry::IA32E_MODE_GUEST.bits());
    let proc = bench.vmcs.get(field::PRIMARY_PROCESSOR_BASED_CONTROLS)
        | u64::from(Proc::ACTIVATE_SECONDARY_CONTROLS.bits());
    let eptp = bench.pages.eptp;
    for (to, value) in [
        (field::PRIMARY_PROCESSOR_BASED_CONTROLS, proc),
        (field::SECONDARY_PROCESSOR_BASED_CONTROLS, proc2),
        (field::EPT_POINTER, eptp),
        (field::VM_ENTRY_CONTROLS, entry),
        (field::GUEST_IA32_EFER, 0),
        (field::GUEST_CR4, 0x2000),
    ] {
        bench.vmcs.set(to, value);
    }
    let (mut committed, mut clean) = (0, 0);
    for round in 0..20_000 {
        let (mut memory, mut task) = machine();
        let source = [Source::Call, Source::Iret, Source::Jmp, Source::Gate][round % 4];
        let kind = if source == Source::Iret { 0xb } else { 9 };
        let kind = if random() % 4 == 0 { kind & !8 } else { kind };
        memory.descriptor(NEW_TSS, tss(NEW, kind));
        if random() % 2 == 0 {
            memory.put(NEW + 0x24, random() as u32);
        }
        for _ in 0..random() % 4 {
            let at = NEW + (random() % 0x68) as u32;
            memory.0[at as usize] = random() as u8;
        }
        for selector in [CODE, DATA, LDT] {
            for _ in 0..random() % 3 {
                let at = GDT + u32::from(selector) + (random() % 8) as u32;
                memory.0[at as usize] ^= 1 << (random() % 8);
            }
        }
        let request = Switch {
            error_code: (source == Source::Gate).then_some(random() as u32),
            ..request(source)
        };
        let done = switch(&mut memory, &mut task, &request);
        if !done.is_committed {
            continue;
        }
        committed += 1;
        clean += usize::from(done.exception.is_none());
        let v = &mut bench.vmcs;
        v.set(field::GUEST_RIP, u64::from(task.eip));
        v.set(field::GUEST_RFLAGS, u64::from(task.eflags));
        let all = task.segments.iter().chain([&task.ldtr, &task.tr]);
        for (to, value) in SegmentFields::ALL.into_iter().zip(all) {
            v.set(to.selector, u64::from(value.selector));
            v.set(to.base, u64::from(value.base));
            v.set(to.limit, u64::from(value.limit));
            v.set(to.rights, u64::from(value.rights));
        }
        let ctx = Ctx::new(
            &bench.vmcs,
            &bench.caps,
            &bench.cpu,
            bench.l1,
            &bench.memory,
        );
        let broken = check_guest_state(&ctx, &FieldSet::FULL).err().map(|r| r.id);
        assert_eq!(broken, None, "round {round}: {request:?} gave {task:?}");
    }
    assert!(committed > 10_000 && clean > 3000, "{committed}, {clean}");
}
