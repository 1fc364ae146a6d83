//! Starts a KVM machine by hand, or measures what its start costs up to the first entry into the guest.
//!
//! ```text
//! kvm_start KERNEL INITRAMFS [--memory MIB] [--cpus N] [--word WORD]… [--image FILE] [--disk FILE] [--prepare]
//! ```
//!
//! The machine has the devices of a container: a socket device that refuses every connection, randomness, a balloon, and
//! with `--image` and `--disk` also persistent memory and a writable disk.
//!
//! Without `--prepare` the guest's console goes to standard output, and how the machine ended is the last line. With it
//! nothing is entered: processor time of this process since its execution, and memory of the process beyond the
//! guest's, are printed as `key value` lines.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use bulkhead_devices::{Acceptor, Balloon, Block, Device, Pmem, Rng, Vsock};
use bulkhead_platform::{Boot, KernelImage, KernelKind, Kvm, VmConfig, VmDevice};
use bulkhead_types::Isolation;

struct Options {
    kernel: PathBuf,
    initramfs: PathBuf,
    memory: u64,
    cpus: u32,
    words: Vec<String>,
    image: Option<PathBuf>,
    disk: Option<PathBuf>,
    prepare: bool,
}

/// Nobody listens.
struct Nobody;

impl Acceptor for Nobody {
    fn accept(&mut self, _: u32) -> Option<std::os::unix::net::UnixStream> {
        None
    }
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut paths = Vec::new();
    let mut options = Options {
        kernel: PathBuf::new(),
        initramfs: PathBuf::new(),
        memory: 512,
        cpus: 1,
        words: Vec::new(),
        image: None,
        disk: None,
        prepare: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--memory" => options.memory = value()?.parse()?,
            "--cpus" => options.cpus = value()?.parse()?,
            "--word" => options.words.push(value()?),
            "--image" => options.image = Some(value()?.into()),
            "--disk" => options.disk = Some(value()?.into()),
            "--prepare" => options.prepare = true,
            _ => paths.push(PathBuf::from(word)),
        }
    }
    let mut paths = paths.into_iter();
    options.kernel = paths.next().ok_or("no kernel given")?;
    options.initramfs = paths.next().ok_or("no initramfs given")?;
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    // As the sandbox does: its threads hardly allocate.
    // SAFETY: a setting of the allocator, before there is a second thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    let options = options()?;
    let kernel = KernelImage {
        isolation: Isolation::Kvm,
        path: options.kernel,
        kind: KernelKind::Tuned,
        modules: None,
        libraries: Vec::new(),
        dax: false,
    };
    let (console, write) = std::io::pipe()?;
    let device = |name: &str, device: Box<dyn Device>| VmDevice {
        name: name.to_owned(),
        device,
    };
    let mut devices = vec![
        device("vsock", Box::new(Vsock::new(3, Box::new(Nobody)))),
        device("rng", Box::new(Rng::new())),
        device("balloon", Box::new(Balloon::new())),
    ];
    if let Some(path) = &options.image {
        let pmem = Pmem::read_only(vec![File::open(path)?])?;
        devices.push(device("image", Box::new(pmem)));
    }
    if let Some(path) = &options.disk {
        let file = File::options().read(true).write(true).open(path)?;
        devices.push(device("disk", Box::new(Block::writable(file, "disk")?)));
    }
    let config = VmConfig {
        memory_bytes: options.memory << 20,
        vcpus: options.cpus,
        boot: Boot::open(Isolation::Kvm, &kernel, &options.initramfs)?,
        root: None,
        console: write.into(),
        devices,
        arguments: options.words,
        thread_lock: None,
        page_map: File::open("/proc/self/pagemap").ok(),
    };
    let begun = Instant::now();
    let prepared = Kvm.prepare(config)?;
    if options.prepare {
        println!("wall_us {}", begun.elapsed().as_micros());
        return measure();
    }
    let mut machine = prepared.run()?;
    let printer = std::thread::spawn(move || print(console));
    let exit = machine.wait()?;
    for device in machine.finish_devices() {
        device.outcome?;
    }
    printer
        .join()
        .map_err(|_| "the console's thread panicked")?;
    println!(
        "[the machine ended: {exit}, after {} ms]",
        begun.elapsed().as_millis()
    );
    Ok(())
}

fn print(mut console: std::io::PipeReader) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = console.read(&mut buffer) {
        print!("{}", String::from_utf8_lossy(&buffer[..count]));
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    // SAFETY: an all-zero `rusage` is valid, and is filled in by the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    println!("user_us {}", micros(usage.ru_utime));
    println!("system_us {}", micros(usage.ru_stime));
    println!("cpu_us {}", micros(usage.ru_utime) + micros(usage.ru_stime));
    for line in std::fs::read_to_string("/proc/self/smaps_rollup")?.lines() {
        if let Some(kib) = line.strip_prefix("Pss:") {
            println!("pss_kib {}", kib.trim().trim_end_matches(" kB"));
        }
    }
    Ok(())
}
