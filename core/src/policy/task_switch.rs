//! Hardware task switches, which exit on every CPU and are done for L1 here.
//! SDM "Task Management", "Treatment of Task Switches".
//!
//! A fault up to the commit leaves the old task as it was, but for what the SDM
//! lets a CPU have written by then; a later one belongs to the new task.

use umbra_arch::event::vector;
pub use umbra_arch::qualification::TaskSwitchSource as Source;
use umbra_arch::{AccessRights, EventInfo, EventType, Exception, Rflags, SegmentName};

/// The exception with the EXT bit of its error code as it has to be when it
/// comes up in the delivery of the event of this IDT-vectoring information: set
/// but for INT n, INT3 and INTO. SDM "Error Code".
pub const fn with_ext(exception: Exception, vectoring: EventInfo) -> Exception {
    const EXT: u32 = 1;
    let is_instruction = matches!(
        vectoring.kind(),
        EventType::SoftwareInterrupt | EventType::SoftwareException
    );
    match (exception.vector, exception.error_code) {
        (vector::TS..=vector::GP, Some(code)) if vectoring.valid() && !is_instruction => {
            Exception {
                error_code: Some(code | EXT),
                ..exception
            }
        }
        _ => exception,
    }
}

/// L1's linear memory, by supervisor accesses, through the CR3 in force.
pub trait LinearMemory {
    /// Fills `bytes` from `linear` on.
    ///
    /// # Errors
    /// The page fault.
    fn read(&mut self, linear: u32, bytes: &mut [u8]) -> Result<(), Exception>;
    /// Writes `bytes` at `linear`: all or nothing of a page.
    ///
    /// # Errors
    /// The page fault.
    fn write(&mut self, linear: u32, bytes: &[u8]) -> Result<(), Exception>;
    /// Loads CR3, and the PDPTEs where there are any. Only with paging on.
    ///
    /// # Errors
    /// #GP(0) for a bad PDPTE.
    fn load_cr3(&mut self, value: u32) -> Result<(), Exception>;
}

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// The base.
    pub base: u32,
    /// The limit in bytes.
    pub limit: u32,
    /// Access rights as in the VMCS.
    pub rights: u32,
}

impl Segment {
    /// With a null selector.
    const fn unusable(selector: u16) -> Self {
        Self {
            selector,
            base: 0,
            limit: 0,
            rights: AccessRights::UNUSABLE.into_bits(),
        }
    }

    /// In virtual-8086 mode.
    const fn virtual_8086(selector: u16) -> Self {
        Self {
            selector,
            base: (selector as u32) << 4,
            limit: 0xffff,
            rights: AccessRights::V8086.into_bits(),
        }
    }
}

/// The flags that are defined. A TSS may have any bit at 1; the reserved ones
/// stay 0 in the register. SDM "EFLAGS Register".
const EFLAGS_DEFINED: u32 = Rflags::all().bits() as u32;
const EFLAGS_FIXED: u32 = Rflags::FIXED.bits() as u32;
const EFLAGS_NT: u32 = Rflags::NT.bits() as u32;
const EFLAGS_VM: u32 = Rflags::VM.bits() as u32;

// Numbers of `Task::segments`, as in a TSS.
const ES: usize = SegmentName::Es as usize;
const CS: usize = SegmentName::Cs as usize;
const SS: usize = SegmentName::Ss as usize;
const DS: usize = SegmentName::Ds as usize;
const FS: usize = SegmentName::Fs as usize;
const GS: usize = SegmentName::Gs as usize;

/// The registers that a task switch saves, loads or looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Task {
    /// EIP.
    pub eip: u32,
    /// EFLAGS.
    pub eflags: u32,
    /// EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
    pub gprs: [u32; 8],
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// CR0.PG.
    pub has_paging: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The new task's selector.
    pub selector: u16,
    /// What started it.
    pub source: Source,
    /// Base and limit of the GDT.
    pub gdt: (u32, u32),
    /// EIP for the old task: behind the instruction, or at it where an event
    /// that is no instruction goes through a task gate.
    pub old_eip: u32,
    /// The event's error code, for the new stack.
    pub error_code: Option<u32>,
}

/// How a switch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The new task is in place (also when an exception follows).
    pub is_committed: bool,
    /// What has to be raised now.
    pub exception: Option<Exception>,
    /// The new TSS has its debug-trap flag set.
    pub has_debug_trap: bool,
}

/// Where a TSS keeps things.
struct Form {
    bytes: usize,
    word: usize,
    eip: usize,
    eflags: usize,
    gprs: usize,
    selectors: usize,
    selector_count: usize,
    ldt: usize,
}

const FORM_32: Form = Form {
    bytes: 0x68,
    word: 4,
    eip: 0x20,
    eflags: 0x24,
    gprs: 0x28,
    selectors: 0x48,
    selector_count: 6,
    ldt: 0x60,
};
const FORM_16: Form = Form {
    bytes: 0x2c,
    word: 2,
    eip: 0x0e,
    eflags: 0x10,
    gprs: 0x12,
    selectors: 0x22,
    selector_count: 4,
    ldt: 0x2a,
};
/// CR3 in a 32-bit TSS.
const CR3_AT: usize = 0x1c;
/// The debug-trap flag in a 32-bit TSS.
const TRAP_AT: usize = 0x64;

impl Form {
    const fn of(rights: u32) -> &'static Self {
        if rights & 8 != 0 { &FORM_32 } else { &FORM_16 }
    }

    fn get(&self, image: &[u8; 0x68], at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes[..self.word].copy_from_slice(&image[at..at + self.word]);
        u32::from_le_bytes(bytes)
    }

    fn put(&self, image: &mut [u8; 0x68], at: usize, value: u32) {
        image[at..at + self.word].copy_from_slice(&value.to_le_bytes()[..self.word]);
    }
}

/// A descriptor as it lies in a table.
#[derive(Clone, Copy)]
struct Descriptor(u64);

impl Descriptor {
    const fn kind(self) -> u32 {
        (self.0 >> 40) as u32 & 0x1f
    }
    const fn dpl(self) -> u16 {
        (self.0 >> 45) as u16 & 3
    }
    const fn is_present(self) -> bool {
        self.0 & 1 << 47 != 0
    }
    const fn segment(self, selector: u16) -> Segment {
        let raw = (self.0 & 0xffff | self.0 >> 32 & 0xf_0000) as u32;
        let is_in_pages = self.0 & 1 << 55 != 0;
        Segment {
            selector,
            base: (self.0 >> 16 & 0xff_ffff | self.0 >> 32 & 0xff00_0000) as u32,
            limit: if is_in_pages { raw << 12 | 0xfff } else { raw },
            rights: (self.0 >> 40) as u32 & 0xf0ff,
        }
    }
}

const BUSY: u32 = 2;

fn read_descriptor(memory: &mut impl LinearMemory, at: u32) -> Result<Descriptor, Exception> {
    let mut bytes = [0; 8];
    memory.read(at, &mut bytes)?;
    Ok(Descriptor(u64::from_le_bytes(bytes)))
}

/// Writes a descriptor's type byte.
fn write_kind(
    memory: &mut impl LinearMemory,
    at: u32,
    descriptor: Descriptor,
) -> Result<(), Exception> {
    memory.write(at.wrapping_add(5), &[(descriptor.0 >> 40) as u8])
}

/// The address of a selector's descriptor in a table, if the table holds it.
fn slot(table: (u32, u32), selector: u16) -> Option<u32> {
    let offset = u32::from(selector & 0xfff8);
    (offset + 7 <= table.1).then(|| table.0.wrapping_add(offset))
}

/// Does the switch on `task`.
pub fn switch(memory: &mut impl LinearMemory, task: &mut Task, request: &Switch) -> Outcome {
    let mut trap = false;
    match commit(memory, task, request) {
        Err(exception) => Outcome {
            is_committed: false,
            exception: Some(exception),
            has_debug_trap: false,
        },
        Ok((form, image)) => {
            let result = load(memory, task, request, form, &image);
            if form.word == 4 {
                trap = image[TRAP_AT] & 1 != 0;
            }
            Outcome {
                is_committed: true,
                exception: result.err(),
                has_debug_trap: trap,
            }
        }
    }
}

/// Checks the new TSS, saves the old task and makes the new TSS the CPU's.
fn commit(
    memory: &mut impl LinearMemory,
    task: &mut Task,
    request: &Switch,
) -> Result<(&'static Form, [u8; 0x68]), Exception> {
    let Switch {
        selector,
        source,
        gdt,
        ..
    } = *request;
    let is_iret = source == Source::Iret;
    let bad = if is_iret {
        Exception::of_selector(vector::TS, selector)
    } else {
        Exception::of_selector(vector::GP, selector)
    };
    let at = match slot(gdt, selector) {
        Some(at) if selector & 4 == 0 && selector & 0xfff8 != 0 => at,
        _ => return Err(bad),
    };
    let mut new = read_descriptor(memory, at)?;
    let wanted = if is_iret { BUSY } else { 0 };
    // 1 and 3: 16-bit TSS, available and busy; 9 and 11: 32-bit.
    if new.kind() & !8 != 1 | wanted {
        return Err(bad);
    }
    if !new.is_present() {
        return Err(Exception::of_selector(vector::NP, selector));
    }
    let form = Form::of(new.kind());
    let mut tr = new.segment(selector);
    if (tr.limit as usize) < form.bytes - 1 {
        return Err(Exception::of_selector(vector::TS, selector));
    }
    let mut image = [0; 0x68];
    memory.read(tr.base, &mut image[..form.bytes])?;
    save(memory, task, request)?;
    if matches!(source, Source::Call | Source::Gate) {
        let link = task.tr.selector.to_le_bytes();
        memory.write(tr.base, &link)?;
        image[..2].copy_from_slice(&link);
    }
    if !is_iret {
        new.0 |= u64::from(BUSY) << 40;
        write_kind(memory, at, new)?;
    }
    tr.rights |= BUSY;
    task.tr = tr;
    Ok((form, image))
}

/// Saves the old task in its TSS, which is no longer busy where it is left for
/// good.
fn save(memory: &mut impl LinearMemory, task: &Task, request: &Switch) -> Result<(), Exception> {
    let form = Form::of(task.tr.rights);
    let mut image = [0; 0x68];
    let mut eflags = task.eflags;
    if request.source == Source::Iret {
        eflags &= !EFLAGS_NT;
    }
    form.put(&mut image, form.eip, request.old_eip);
    form.put(&mut image, form.eflags, eflags);
    for (n, &value) in task.gprs.iter().enumerate() {
        form.put(&mut image, form.gprs + n * form.word, value);
    }
    for (n, segment) in task.segments.iter().take(form.selector_count).enumerate() {
        let at = form.selectors + n * form.word;
        form.put(&mut image, at, u32::from(segment.selector));
    }
    // From EIP to the last selector: CR3 and the LDT are not saved.
    let end = form.selectors + form.selector_count * form.word;
    let to = task.tr.base.wrapping_add(form.eip as u32);
    memory.write(to, &image[form.eip..end])?;
    if matches!(request.source, Source::Iret | Source::Jmp)
        && let Some(at) = slot(request.gdt, task.tr.selector)
    {
        let mut old = read_descriptor(memory, at)?;
        old.0 &= !(u64::from(BUSY) << 40);
        write_kind(memory, at, old)?;
    }
    Ok(())
}

/// Loads the new task from its TSS.
fn load(
    memory: &mut impl LinearMemory,
    task: &mut Task,
    request: &Switch,
    form: &Form,
    image: &[u8; 0x68],
) -> Result<(), Exception> {
    task.eip = form.get(image, form.eip);
    task.eflags = form.get(image, form.eflags) & EFLAGS_DEFINED | EFLAGS_FIXED;
    if matches!(request.source, Source::Call | Source::Gate) {
        task.eflags |= EFLAGS_NT;
    }
    for n in 0..8 {
        task.gprs[n] = form.get(image, form.gprs + n * form.word);
    }
    if form.word == 2 {
        // The upper halves are undefined; all ones, as CPUs have had it.
        for gpr in &mut task.gprs {
            *gpr |= 0xffff_0000;
        }
    }
    let mut selectors = [0u16; 6];
    for (n, selector) in selectors.iter_mut().take(form.selector_count).enumerate() {
        *selector = form.get(image, form.selectors + n * form.word) as u16;
    }
    // Until each is checked, its selector is in place and nothing can be
    // reached through it.
    let is_virtual = task.eflags & EFLAGS_VM != 0;
    for (segment, &selector) in task.segments.iter_mut().zip(&selectors) {
        *segment = if is_virtual {
            Segment::virtual_8086(selector)
        } else {
            Segment::unusable(selector)
        };
    }
    let ldt = form.get(image, form.ldt) as u16;
    task.ldtr = Segment::unusable(ldt);
    if !is_virtual {
        // Whatever fails from here on is delivered at the new CS's level.
        let cpl = u32::from(selectors[CS] & 3);
        task.segments[CS] = Segment {
            rights: AccessRights::CODE_32.into_bits() | cpl << 5,
            limit: 0xffff_ffff,
            ..Segment::unusable(selectors[CS])
        };
        task.segments[SS] = Segment {
            rights: AccessRights::DATA_32.into_bits() | cpl << 5,
            limit: 0xffff_ffff,
            ..Segment::unusable(selectors[SS])
        };
    }
    if form.word == 4 && task.has_paging {
        memory.load_cr3(form.get(image, CR3_AT))?;
    }
    load_ldt(memory, task, request.gdt, ldt)?;
    if !is_virtual {
        for n in [SS, CS, ES, DS, FS, GS] {
            task.segments[n] = load_segment(memory, task, request.gdt, n, &selectors)?;
        }
    }
    push_error_code(memory, task, request, form)?;
    if task.eip > task.segments[CS].limit {
        return Err(Exception::of_selector(vector::GP, 0));
    }
    Ok(())
}

fn load_ldt(
    memory: &mut impl LinearMemory,
    task: &mut Task,
    gdt: (u32, u32),
    selector: u16,
) -> Result<(), Exception> {
    if selector & 0xfffc == 0 {
        return Ok(());
    }
    let at = match slot(gdt, selector) {
        Some(at) if selector & 4 == 0 => at,
        _ => return Err(Exception::of_selector(vector::TS, selector)),
    };
    let descriptor = read_descriptor(memory, at)?;
    if descriptor.kind() != 2 || !descriptor.is_present() {
        return Err(Exception::of_selector(vector::TS, selector));
    }
    task.ldtr = descriptor.segment(selector);
    Ok(())
}

/// Checks and loads segment register `n`.
fn load_segment(
    memory: &mut impl LinearMemory,
    task: &Task,
    gdt: (u32, u32),
    n: usize,
    selectors: &[u16; 6],
) -> Result<Segment, Exception> {
    let selector = selectors[n];
    let bad = Exception::of_selector(vector::TS, selector);
    if selector & 0xfffc == 0 {
        return match n {
            CS | SS => Err(bad),
            _ => Ok(Segment::unusable(selector)),
        };
    }
    let table = match selector & 4 {
        0 => gdt,
        _ if AccessRights::from_bits(task.ldtr.rights).unusable() => return Err(bad),
        _ => (task.ldtr.base, task.ldtr.limit),
    };
    let at = slot(table, selector).ok_or(bad)?;
    let mut descriptor = read_descriptor(memory, at)?;
    let kind = descriptor.kind();
    let (is_code_or_data, is_code) = (kind & 0x10 != 0, kind & 8 != 0);
    let conforms = is_code && kind & 4 != 0;
    // Readable code, writable data.
    let second = kind & 2 != 0;
    let (cpl, rpl) = (selectors[CS] & 3, selector & 3);
    let dpl = descriptor.dpl();
    let is_allowed = is_code_or_data
        && match n {
            CS => is_code && if conforms { dpl <= rpl } else { dpl == rpl },
            SS => !is_code && second && dpl == cpl && rpl == cpl,
            _ => (!is_code || second) && (conforms || dpl >= cpl && dpl >= rpl),
        };
    if !is_allowed {
        return Err(bad);
    }
    if !descriptor.is_present() {
        return Err(if n == SS {
            Exception::of_selector(vector::SS, selector)
        } else {
            Exception::of_selector(vector::NP, selector)
        });
    }
    if kind & 1 == 0 {
        // Accessed.
        descriptor.0 |= 1 << 40;
        write_kind(memory, at, descriptor)?;
    }
    Ok(descriptor.segment(selector))
}

/// The event's error code goes onto the new task's stack, as wide as the TSS.
fn push_error_code(
    memory: &mut impl LinearMemory,
    task: &mut Task,
    request: &Switch,
    form: &Form,
) -> Result<(), Exception> {
    let Some(code) = request.error_code else {
        return Ok(());
    };
    let stack = task.segments[SS];
    let mask = if stack.rights & 1 << 14 != 0 {
        u32::MAX
    } else {
        0xffff
    };
    let esp = task.gprs[4].wrapping_sub(form.word as u32) & mask;
    let last = esp.wrapping_add(form.word as u32 - 1) & mask;
    let grows_down = stack.rights & 0xc == 4;
    let is_inside = if grows_down {
        esp > stack.limit && last >= esp
    } else {
        last <= stack.limit && last >= esp
    };
    if !is_inside {
        return Err(Exception::of_selector(vector::SS, 0));
    }
    let to = stack.base.wrapping_add(esp);
    memory.write(to, &code.to_le_bytes()[..form.word])?;
    task.gprs[4] = task.gprs[4] & !mask | esp;
    Ok(())
}

#[cfg(test)]
#[path = "task_switch_tests.rs"]
mod tests;
