//! What a container may do with its own kernel: device nodes, /proc and /sys, and the flags that change it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bulkhead_e2e::{Bulkhead, Entry, busybox_tar, each_user, layer};

/// Two empty blocks end an archive.
const END_OF_ARCHIVE: usize = 1024;
/// The kernel's number of a virtio disk.
const VIRTIO_DISK: u32 = 254;

/// Busybox, and `entries` after it.
fn import(b: &Bulkhead, name: &str, change: &str, entries: &[(&str, Entry)]) {
    let mut archive = busybox_tar();
    archive.truncate(archive.len() - END_OF_ARCHIVE);
    archive.extend(layer(entries));
    b.command(&["import", "-c", change, "-", name])
        .with_input(archive)
        .finish()
        .ok();
}

/// What the host's kernel says of the processes of a container's sandbox: identities, capabilities, filters.
fn walls(b: &Bulkhead, name: &str) -> BTreeSet<String> {
    let sandbox = b.inspect(name)["State"]["Pid"].to_string();
    let mut family = BTreeSet::from([sandbox]);
    let status =
        |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    loop {
        let before = family.len();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if family.contains(&field(&status(&pid), "PPid:")) {
                family.insert(pid);
            }
        }
        if family.len() == before {
            break;
        }
    }
    assert!(!family.is_empty());
    let kept = [
        "Groups:",
        "CapInh:",
        "CapPrm:",
        "CapEff:",
        "CapBnd:",
        "CapAmb:",
        "NoNewPrivs:",
        "Seccomp",
    ];
    let of = |pid: &String| {
        let status = status(pid);
        let mut out = String::new();
        for line in status
            .lines()
            .filter(|line| kept.iter().any(|name| line.starts_with(name)))
        {
            writeln!(out, "{line}").unwrap();
        }
        // Each sandbox of root's has a user of its own.
        let uid = field(&status, "Uid:");
        let root = uid.split_whitespace().any(|uid| uid == "0");
        writeln!(out, "root: {root}").unwrap();
        out
    };
    family
        .iter()
        .map(of)
        .filter(|text| text.contains("Seccomp"))
        .collect()
}

each_user! {
    a_device_node_of_an_image_opens_nothing(b) {
        import(b, "nodes:1", "CMD [\"sh\"]", &[
            ("scratch", Entry::Block(VIRTIO_DISK, 0)),
            ("kmsg", Entry::Character(1, 11)),
            ("null", Entry::Character(1, 3)),
        ]);
        let script = "for node in /scratch /kmsg /null; do head -c 1 $node && exit 1; done; echo > /dev/null";
        for user in ["1000", "root"] {
            let tried = b.run(&["run", "--rm", "-u", user, "nodes:1", "sh", "-c", script]).ok();
            assert_eq!(tried.stderr.matches("Permission denied").count(), 3, "{user}: {}", tried.stderr);
        }
        b.expect_nothing_left();
    }

    a_device_node_that_root_makes_opens_nothing(b) {
        import(b, "volume:1", "VOLUME /data", &[("data", Entry::Directory(0o755))]);
        let script = "for place in / /tmp /dev /dev/shm /data /scratch; do mknod $place/node b 254 0; head -c 1 $place/node && exit 1; done; \
            mknod /dev/made c 1 3; echo > /dev/made; :";
        let tried = b.run(&["run", "--rm", "--tmpfs", "/scratch", "volume:1", "sh", "-c", script]).ok();
        assert_eq!(tried.stderr.matches("ermission denied").count(), 7, "{}", tried.stderr);
        b.expect_nothing_left();
    }

    a_tmpfs_with_devices_has_none_unless_privileged(b) {
        let script = "mknod -m 666 /d/disk b 254 0 && head -c 1 /d/disk | wc -c; mknod /d/null c 1 3; echo > /d/null && echo written";
        let of = |flags: &[&str]| b.run(&[&["run", "--rm", "--tmpfs", "/d:dev"], flags, &["busybox", "sh", "-c", script]].concat());
        let closed = of(&[]).expect_code(1);
        assert_eq!(closed.stderr.matches("ermission denied").count(), 2, "{}", closed.stderr);
        assert_eq!(closed.text(), "0");
        assert_eq!(of(&["--privileged"]).ok().text(), "1\nwritten");
        b.expect_nothing_left();
    }

    devices_are_for_users_as_on_a_host(b) {
        let flags = ["--device", "/dev/fuse", "--device", "/dev/net/tun", "--device", "/dev/loop0"];
        let script = "stat -c '%a %u:%g' /dev/fuse /dev/net/tun /dev/loop0; exec 3<>/dev/fuse 4<>/dev/net/tun && echo open; exec 5</dev/loop0";
        for privileged in [&[][..], &["--privileged"]] {
            let run = [&["run", "--rm", "-u", "1000"], privileged, &flags[..], &["busybox", "sh", "-c", script]].concat();
            let out = b.run(&run);
            assert_eq!(out.text(), "666 0:0\n666 0:0\n660 0:6\nopen", "{}", out.stderr);
            out.says("/dev/loop0: Permission denied");
        }
    }

    every_container_has_dockers_devices(b) {
        let script = "for n in null zero full random urandom tty; do stat -c '%F %t:%T %a' /dev/$n; done; \
            echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo x > /dev/full";
        let out = b.run(&["run", "--rm", "-u", "1000", "busybox", "sh", "-c", script]).expect_code(1).says("No space left");
        let numbers = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"].map(|number| format!("character special file {number} 666\n"));
        assert_eq!(out.text(), format!("{}3\n3", numbers.concat()));
    }

    paths_of_the_kernel_are_masked_and_read_only_as_in_docker(b) {
        let script = "cat /proc/sys/kernel/printk > /dev/null && echo 1 > /proc/sys/kernel/printk; cat /proc/keys /proc/timer_list /proc/interrupts; \
            ls /sys/firmware 2>/dev/null; echo x > /proc/irq/x; mount | grep -c '^proc on /proc/[a-z]* .*(ro,'";
        let out = b.run(&["run", "--rm", "busybox", "sh", "-c", script]).ok();
        assert_eq!(out.text(), "4", "{}", out.stderr);
        assert!(out.stderr.contains("printk: Read-only file system"), "{}", out.stderr);
        let unconfined = ["run", "--rm", "--security-opt", "systempaths=unconfined", "busybox", "sh", "-c",
            "cat /proc/timer_list | grep -c . ; mount | grep -c ' /proc/'"];
        let out = b.run(&unconfined).expect_code(1).text();
        assert!(out.ends_with("\n0") && !out.starts_with('0'), "{out}");
    }

    a_privileged_container_owns_its_guest_and_no_more_of_the_host(b) {
        b.run(&["run", "-d", "--name", "plain", "busybox", "sleep", "600"]).ok();
        b.run(&["run", "-d", "--name", "all", "--privileged", "busybox", "sleep", "600"]).ok();
        let script = "grep CapEff /proc/self/status; mknod /node c 1 5 && head -c 1 /node | wc -c; ls /dev/vda /dev/kmsg; \
            echo 4 > /proc/sys/kernel/printk && echo written; mount | grep -c ' /proc/'";
        let inside = b.run(&["exec", "all", "sh", "-c", script]).expect_code(1).text();
        assert_eq!(inside, "CapEff:\t000001ffffffffff\n1\n/dev/kmsg\n/dev/vda\nwritten\n0");
        assert_eq!(walls(b, "all"), walls(b, "plain"));
        let of = |name: &str| b.inspect(name)["HostConfig"].clone();
        let (all, plain) = (of("all"), of("plain"));
        assert_eq!((&all["Privileged"], &plain["Privileged"]), (&true.into(), &false.into()));
        assert!(all["MaskedPaths"].is_null() && plain["MaskedPaths"].as_array().unwrap().len() == 12, "{plain}");
        assert_eq!(plain["ReadonlyPaths"][3], "/proc/sys");
        assert_eq!(b.inspect("all")["Bulkhead"]["Jail"], b.inspect("plain")["Bulkhead"]["Jail"]);
        b.run(&["rm", "-f", "all", "plain"]).ok();
        b.expect_nothing_left();
    }

    a_privileged_exec_has_every_capability_and_its_neighbours_not(b) {
        b.run(&["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
        let of = |flags: &[&str]| b.run(&[&["exec"], flags, &["box", "grep", "CapEff", "/proc/self/status"]].concat()).ok().text();
        assert_eq!(of(&["--privileged"]), "CapEff:\t000001ffffffffff");
        assert_eq!(of(&[]), "CapEff:\t00000000a80425fb");
        b.run(&["rm", "-f", "box"]).ok();
    }

    no_new_privileges_holds_in_the_container(b) {
        let of = |flags: &[&str]| b.run(&[&["run", "--rm"], flags, &["busybox", "grep", "NoNewPrivs", "/proc/self/status"]].concat());
        assert_eq!(of(&[]).ok().text(), "NoNewPrivs:\t0");
        assert_eq!(of(&["--security-opt", "no-new-privileges"]).ok().text(), "NoNewPrivs:\t1");
        assert_eq!(of(&["--security-opt", "no-new-privileges:false"]).ok().text(), "NoNewPrivs:\t0");
        of(&["--security-opt", "seccomp=unconfined"]).expect_code(125).says("\"seccomp=unconfined\"");
    }

    devices_of_the_guest_are_given_and_those_of_the_host_refused(b) {
        let of = |device: &str, path: &str| b.run(&["run", "--rm", "--device", device, "busybox", "stat", "-c", "%t:%T", path]);
        assert_eq!(of("/dev/fuse", "/dev/fuse").ok().text(), "a:e5");
        assert_eq!(of("/dev/net/tun:/srv/deep/tun:rw", "/srv/deep/tun").ok().text(), "a:c8");
        assert_eq!(of("/dev/loop11", "/dev/loop11").ok().text(), "7:b");
        for host in ["/dev/kvm", "/dev/sda", "/dev/vda"] {
            of(host, "/").expect_code(125).says(host).says("never one of the host");
        }
        b.run(&["create", "--name", "box", "--device", "/dev/fuse", "busybox"]).ok();
        let device = b.inspect("box")["HostConfig"]["Devices"][0].clone();
        assert_eq!((&device["PathOnHost"], &device["CgroupPermissions"]), (&"/dev/fuse".into(), &"rwm".into()));
        b.run(&["rm", "box"]).ok();
        b.expect_nothing_left();
    }

    what_create_accepts_of_a_tmpfs_start_accepts(b) {
        for options in ["mpol=interleave", "diratime,norelatime,nostrictatime", "defaults,noatime,size=50%", "nr_inodes=1k,mode=1770,uid=5"] {
            let mount = format!("/t:{options}");
            b.run(&["run", "--rm", "--tmpfs", &mount, "busybox", "touch", "/t/x"]).ok();
        }
        b.run(&["create", "--tmpfs", "/t:size=abc", "busybox"]).expect_code(1).says("size=abc");
    }

    generated_files_survive_links_and_mounts_at_etc(b) {
        let script = "grep -c box /etc/hosts; cat /etc/hostname; wc -c < /etc/resolv.conf";
        let tmpfs = b.run(&["run", "--rm", "-h", "box", "--tmpfs", "/etc", "busybox", "sh", "-c", script]).ok().text();
        assert_eq!(tmpfs, "1\nbox\n0");
        let mut archive = layer(&[("real", Entry::Directory(0o755)), ("etc", Entry::Link("/real".into()))]);
        archive.truncate(archive.len() - END_OF_ARCHIVE);
        let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        archive.extend(layer(&[("bin", Entry::Directory(0o755)), ("bin/busybox", Entry::File(0o755, busybox))]));
        b.command(&["import", "-", "linked:1"]).with_input(archive).finish().ok();
        let script = "busybox grep -c box /etc/hosts; busybox cat /real/hostname; busybox wc -c < /etc/resolv.conf";
        for flags in [&[][..], &["--read-only"]] {
            let run = [&["run", "--rm", "-h", "box"], flags, &["linked:1", "/bin/busybox", "sh", "-c", script]].concat();
            assert_eq!(b.run(&run).ok().text(), "1\nbox\n0", "{flags:?}");
        }
        b.expect_nothing_left();
    }

    what_a_link_to_nowhere_names_is_made_in_the_container(b) {
        let mut archive = layer(&[
            ("etc", Entry::Link("/nowhere".into())),
            ("srv", Entry::Link("lost/../gone".into())),
        ]);
        archive.truncate(archive.len() - END_OF_ARCHIVE);
        let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        archive.extend(layer(&[("bin", Entry::Directory(0o755)), ("bin/busybox", Entry::File(0o755, busybox))]));
        b.command(&["import", "-c", "VOLUME /srv/data", "-", "dangling:1"]).with_input(archive).finish().ok();
        let script = "busybox grep -c box /etc/hosts; busybox cat /nowhere/hostname; busybox wc -c < /nowhere/resolv.conf; \
            busybox mount | busybox grep -cE ' /gone/(data|tmp) '; pwd -P";
        let flags = ["--tmpfs", "/srv/tmp", "-w", "/srv/work", "-h", "box"];
        for read_only in [&[][..], &["--read-only"]] {
            let run = [&["run", "--rm"], &flags[..], read_only, &["dangling:1", "/bin/busybox", "sh", "-c", script]].concat();
            assert_eq!(b.run(&run).ok().text(), "1\nbox\n0\n2\n/gone/work", "{read_only:?}");
        }
        b.expect_nothing_left();
    }

    a_volume_on_a_file_is_refused_when_the_container_is_created(b) {
        import(b, "odd:1", "VOLUME /etc/passwd", &[]);
        b.run(&["create", "odd:1"]).expect_code(1).says("cannot mount volume over existing file, file exists /etc/passwd");
        import(b, "good:1", "VOLUME /link/new", &[("link", Entry::Link("/tmp".into()))]);
        b.run(&["run", "--rm", "good:1", "touch", "/tmp/new/file"]).ok();
        b.expect_nothing_left();
    }

    a_working_directory_that_is_a_file_is_refused_when_the_container_is_created(b) {
        import(b, "odd:1", "WORKDIR /etc/passwd/below", &[("link", Entry::Link("/etc/passwd".into()))]);
        b.run(&["create", "odd:1"]).expect_code(1).says("cannot mkdir: /etc/passwd/below is not a directory");
        b.run(&["create", "-w", "/link", "odd:1"]).expect_code(1).says("cannot mkdir: /link is not a directory");
        b.run(&["create", "-w", "/etc/new", "odd:1", "true"]).ok();
    }

    a_missing_working_directory_is_made_with_the_container_only(b) {
        let read_only = ["run", "--rm", "--read-only", "-w", "/made/for/it", "busybox", "sh", "-c", "pwd; ! touch x"];
        assert_eq!(b.run(&read_only).ok().text(), "/made/for/it");
        b.run(&["run", "-d", "--name", "box", "busybox", "sleep", "600"]).ok();
        b.run(&["exec", "-w", "/none", "box", "pwd"]).expect_code(127).says("chdir to cwd (\"/none\")");
        b.run(&["exec", "box", "ls", "/none"]).expect_code(1);
        b.run(&["rm", "-f", "box"]).ok();
    }

    low_ports_are_everybodys(b) {
        for user in ["root", "1000"] {
            let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range";
            let out = b.run(&["run", "--rm", "-u", user, "busybox", "sh", "-c", script]).ok().text();
            assert_eq!(out, "0\n0\t2147483647", "{user}");
        }
    }

    the_init_forwards_a_real_time_signal(b) {
        let script = "trap 'echo got; exit 3' 37; echo up; while :; do sleep 0.05; done";
        b.run(&["run", "-d", "--init", "--name", "box", "busybox", "sh", "-c", script]).ok();
        b.wait_for_log("box", "up");
        b.run(&["kill", "-s", "RTMIN+3", "box"]).ok();
        assert_eq!(b.run(&["wait", "box"]).ok().text(), "3");
        b.run(&["rm", "box"]).ok();
    }

    a_terminal_has_a_name_in_the_container(b) {
        let script = "readlink /proc/self/fd/0";
        let out = b.run(&["run", "--rm", "-t", "busybox", "sh", "-c", script]).ok().text();
        assert_eq!(out.trim(), "/dev/pts/0");
    }
}
