//! The 32-bit half: brings the CPU into the mode of a case, runs the case, and records all of it.
//!
//! 1. Control registers, descriptor tables and TR of the case; then, as asked for, VMXON, VMCLEAR of both
//!    VMCSs, VMPTRLD of the first.
//! 2. The case's registers and segments, and IRETD to its code.
//! 3. Whatever comes back, an exception or a VM exit, is recorded with every register.
//! 4. What VMX operation looks like now; then it is left, and paging is switched off.

use core::arch::global_asm;
use core::mem::offset_of;

/// Where code starts and on which stack, in the order in which IRETD takes it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Frame {
    pub eip: u32,
    pub cs: u32,
    pub eflags: u32,
    pub esp: u32,
    pub ss: u32,
    pub es: u32,
    pub ds: u32,
    pub fs: u32,
    pub gs: u32,
}

/// General registers, less ESP.
#[derive(Clone, Copy, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Gprs {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
    pub esi: u32,
    pub edi: u32,
    pub ebp: u32,
}

/// How far VMX operation gets before the case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    /// Outside VMX operation.
    Off = 0,
    /// VMXON, no current VMCS.
    Root = 1,
    /// The first VMCS is current.
    Current = 2,
}

/// What one VM exit told, read by the 32-bit code: reason, qualification, interruption information,
/// its error code, instruction length, EIP of L2, EAX and EBX of L2.
pub type ExitLog = [u32; 8];

/// Exits that a case can log.
pub const LOGGED: usize = 16;

/// What a case starts with and what came of it.
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Job {
    // What goes in.
    pub cr0: u32,
    pub cr3: u32,
    pub cr4: u32,
    /// Bits of IA32_EFER besides LME.
    pub efer: u32,
    /// The memory operands of LGDT and LIDT, as SGDT and SIDT store them.
    pub gdtr: [u32; 2],
    pub idtr: [u32; 2],
    /// The selector for LTR.
    pub task: u32,
    /// A [`Setup`].
    pub setup: u32,
    /// Physical addresses: the VMXON region, and the two VMCSs.
    pub region: [u32; 2],
    pub own: [u32; 2],
    pub other: [u32; 2],
    pub frame: Frame,
    pub gprs: Gprs,
    /// Exits after which L2's EIP is moved on and L2 resumed.
    pub passes: u32,

    // What comes out.
    /// CF or ZF of the setup's instructions, all together: 0 when all succeeded.
    pub setup_failed: u32,
    pub out_frame: Frame,
    pub out_gprs: Gprs,
    /// The vector, or [`EXITED`].
    pub vector: u32,
    pub error: u32,
    pub cr2: u32,
    pub out_cr0: u32,
    pub out_cr3: u32,
    pub out_cr4: u32,
    pub out_efer: u32,
    pub dr7: u32,
    pub out_gdtr: [u32; 2],
    pub out_idtr: [u32; 2],
    pub ldtr: u32,
    pub out_task: u32,
    /// IA32_SYSENTER_CS, _ESP and _EIP.
    pub sysenter: [u32; 3],
    /// What the first 4 bytes of FS and GS hold, and how many exits ES finds
    /// in the job: all ones where the selector is null.
    pub probes: [u32; 3],
    /// 1: still in VMX operation.
    pub is_on: u32,
    /// What VMPTRST stored.
    pub current: [u32; 2],
    /// The VM-instruction error, all ones without a current VMCS.
    pub error_number: u32,
    /// Exits logged.
    pub exits: u32,
    /// EFLAGS after a VMRESUME that fell through, or 0.
    pub resume_flags: u32,
    pub log: [ExitLog; LOGGED],
}

/// The "vector" of a VM exit.
pub const EXITED: u32 = 0x100;

/// The flat segments, which every descriptor table of a case has at the same place.
const DATA: u32 = rt::gdt::DATA as u32;

macro_rules! machine {
    ($($name:ident = $value:expr),* $(,)?) => {
        global_asm!(
            include_str!("machine.S"),
            $($name = const $value,)*
        );
    };
}

machine! {
    flat = DATA,
    job_bytes = size_of::<Job>(),
    cr0 = offset_of!(Job, cr0),
    cr3 = offset_of!(Job, cr3),
    cr4 = offset_of!(Job, cr4),
    efer = offset_of!(Job, efer),
    gdtr = offset_of!(Job, gdtr),
    idtr = offset_of!(Job, idtr),
    task = offset_of!(Job, task),
    setup = offset_of!(Job, setup),
    region = offset_of!(Job, region),
    own = offset_of!(Job, own),
    other = offset_of!(Job, other),
    frame = offset_of!(Job, frame),
    gprs = offset_of!(Job, gprs),
    passes = offset_of!(Job, passes),
    setup_failed = offset_of!(Job, setup_failed),
    out_frame = offset_of!(Job, out_frame),
    out_gprs = offset_of!(Job, out_gprs),
    vector = offset_of!(Job, vector),
    error = offset_of!(Job, error),
    cr2 = offset_of!(Job, cr2),
    out_cr0 = offset_of!(Job, out_cr0),
    out_cr3 = offset_of!(Job, out_cr3),
    out_cr4 = offset_of!(Job, out_cr4),
    out_efer = offset_of!(Job, out_efer),
    dr7 = offset_of!(Job, dr7),
    out_gdtr = offset_of!(Job, out_gdtr),
    out_idtr = offset_of!(Job, out_idtr),
    ldtr = offset_of!(Job, ldtr),
    out_task = offset_of!(Job, out_task),
    sysenter = offset_of!(Job, sysenter),
    probes = offset_of!(Job, probes),
    is_on = offset_of!(Job, is_on),
    current = offset_of!(Job, current),
    error_number = offset_of!(Job, error_number),
    exits = offset_of!(Job, exits),
    resume_flags = offset_of!(Job, resume_flags),
    log = offset_of!(Job, log),
    logged = LOGGED,
    eip = offset_of!(Frame, eip),
    cs = offset_of!(Frame, cs),
    eflags = offset_of!(Frame, eflags),
    esp = offset_of!(Frame, esp),
    ss = offset_of!(Frame, ss),
    es = offset_of!(Frame, es),
    ds = offset_of!(Frame, ds),
    fs = offset_of!(Frame, fs),
    gs = offset_of!(Frame, gs),
    eax = offset_of!(Gprs, eax),
    ebx = offset_of!(Gprs, ebx),
    ecx = offset_of!(Gprs, ecx),
    edx = offset_of!(Gprs, edx),
    esi = offset_of!(Gprs, esi),
    edi = offset_of!(Gprs, edi),
    ebp = offset_of!(Gprs, ebp),
}

unsafe extern "C" {
    static mut legacy_job: Job;
    static legacy_main: u8;
    static legacy_exit: u8;
    static legacy_stubs: u8;
    static legacy_stack_top: u8;
}

/// The address of the handler of a vector below 32.
pub fn handler(vector: u32) -> u32 {
    &raw const legacy_stubs as u32 + vector * 16
}

/// The address that HOST_RIP gets.
pub fn exit_address() -> u32 {
    &raw const legacy_exit as u32
}

/// The top of the stack that the 32-bit code keeps for exits and for faults of other privilege levels.
pub fn stack_top() -> u32 {
    &raw const legacy_stack_top as u32
}

/// Runs a job and returns it with what came of it.
pub fn run(job: &Job) -> Job {
    // SAFETY: the job is used by nobody else; the code keeps the contract of `call32`, as every
    // exception and every exit of a case leads back to it, and this CPU is not in VMX operation.
    unsafe {
        (&raw mut legacy_job).write_volatile(*job);
        rt::trip::call32(&raw const legacy_main as u32, 0);
        (&raw const legacy_job).read_volatile()
    }
}
