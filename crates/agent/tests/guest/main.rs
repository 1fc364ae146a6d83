//! The agent in real guests. What is missing for that is said on a line that begins with `CANNOT RUN`.

mod rig;

use std::process::Command;
use std::time::Instant;

use bulkhead_platform::MachineExit;
use bulkhead_protocol::api::Volume;
use rig::{Disks, Guest, ID, boot, container, parts, process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn in_guest<F: Future<Output = ()>>(test: impl FnOnce(Guest, Disks) -> F) {
    let Some(parts) = parts() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let disks = Disks::new();
        let guest = boot(&parts, &disks).await;
        test(guest, disks).await;
    });
}

fn script(text: &str) -> bulkhead_protocol::api::Process {
    process(&["sh", "-c", text])
}

#[test]
fn a_container_sees_its_own_machine_and_nothing_of_the_agents() {
    in_guest(|guest, _disks| async move {
        guest.create(&container()).await;
        let text = "echo $$; uname -n; cat /etc/hostname; cat /proc/mounts; ifconfig lo | grep 127; \
            ls /dev; cat /proc/self/cgroup; ls /proc | grep -c '^[0-9]'; ls /; ls /sys/fs/cgroup | grep memory.max";
        let (code, out, err) = guest.run(ID, script(text)).await;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(
            out.starts_with("1\nbox\nbox\n") && out.contains("\noverlay / overlay rw"),
            "{out}"
        );
        assert!(out.contains("inet addr:127.0.0.1"), "{out}");
        assert!(out.contains("\n0::/\n"), "{out}");
        for absent in ["devtmpfs", "/run/", "vda", "/init"] {
            let visible: Vec<&str> = out.lines().filter(|line| line.contains(absent)).collect();
            // The overlay names its layers, by paths that lead nowhere.
            assert!(
                visible.iter().all(|line| line.starts_with("overlay / ")),
                "{absent}: {out}"
            );
        }
        assert!(out.ends_with("memory.max\n"), "{out}");
    });
}

#[test]
fn what_a_container_wrote_is_there_after_a_clean_shutdown() {
    in_guest(|guest, disks| async move {
        let mut request = container();
        let mut volume = Volume::new();
        (volume.serial, volume.target) = ("vol0".into(), "/srv/data".into());
        request.volumes = vec![volume];
        guest.create(&request).await;
        let text = "cat /srv/data/deep/file; stat -c %u:%g /srv/data/deep/file; \
            echo kept > /root-file; echo volume > /srv/data/new; ls -A /srv/data";
        let (code, out, err) = guest.run(ID, script(text)).await;
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(out, "from the image\n33:34\ndeep\nnew\n");
        let (exit, console) = guest.shut_down().await;
        assert_eq!(exit, MachineExit::PoweredOff, "{console}");
        for name in ["scratch", "vol0"] {
            // -n: only looks; a journal that needs recovery would be told.
            let check = Command::new("e2fsck")
                .args(["-fn"])
                .arg(disks.path(name))
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&check.stdout).into_owned();
            assert!(
                check.status.success() && !told.contains("recovering journal"),
                "{told}"
            );
        }

        let guest = boot(&parts().unwrap(), &disks).await;
        guest.create(&request).await;
        let (_, out, _) = guest.run(ID, script("cat /root-file /srv/data/new")).await;
        assert_eq!(out, "kept\nvolume\n");
    });
}

#[test]
fn a_container_that_takes_too_much_memory_is_killed_and_says_so() {
    in_guest(|guest, _disks| async move {
        let mut request = container();
        request.memory_limit = 24 << 20;
        guest.create(&request).await;
        let (response, _streams) = guest.start(ID, script("tail /dev/zero"), false).await;
        assert!(response.failure.is_none(), "{:?}", response.failure);
        let exit = guest.wait(ID).await;
        assert!(exit.oom_killed, "{exit:?} {}", guest.console());
        assert_eq!(exit.exit_code, 137);
    });
}

#[test]
fn a_gigabyte_passes_a_pipe_unchanged() {
    in_guest(|guest, _disks| async move {
        guest.create(&container()).await;
        let (_, mut streams) = guest
            .start(
                ID,
                script("dd if=/dev/zero bs=1M count=1024 2>/dev/null"),
                false,
            )
            .await;
        let began = Instant::now();
        let mut piece = vec![0; 1 << 20];
        let mut total = 0;
        loop {
            let length = streams.stdout.read(&mut piece).await.unwrap();
            if length == 0 {
                break;
            }
            assert!(piece[..length].iter().all(|byte| *byte == 0));
            total += length;
        }
        let took = began.elapsed();
        println!(
            "guest to host: {} MB/s",
            (total as f64 / took.as_secs_f64() / 1e6) as u64
        );
        assert_eq!((total, guest.wait(ID).await.exit_code), (1 << 30, 0));
    });
}

#[test]
fn input_reaches_the_process_unchanged() {
    in_guest(|guest, _disks| async move {
        guest.create(&container()).await;
        let (_, mut streams) = guest.start(ID, process(&["sha256sum"]), true).await;
        let input: Vec<u8> = (0..64u32 << 20)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), &input).unwrap();
        let began = Instant::now();
        let mut stdin = streams.stdin.take().unwrap();
        stdin.write_all(&input).await.unwrap();
        stdin.shutdown().await.unwrap();
        println!(
            "host to guest: {} MB/s",
            (input.len() as f64 / began.elapsed().as_secs_f64() / 1e6) as u64
        );
        let mut out = String::new();
        streams.stdout.read_to_string(&mut out).await.unwrap();
        let sum = Command::new("sha256sum").arg(path.path()).output().unwrap();
        assert_eq!(out[..64], String::from_utf8(sum.stdout).unwrap()[..64]);
        assert_eq!(guest.wait(ID).await.exit_code, 0);
    });
}

#[test]
fn a_start_tells_what_it_took() {
    in_guest(|guest, _disks| async move {
        let agent = guest.hello.started_at_ns / 1000;
        println!(
            "hello after {:?}, the agent began at {agent} us of uptime",
            guest.booted_in
        );
        let created = guest.create(&container()).await;
        println!(
            "create {} us, of it mounts {} us",
            created.total_ns / 1000,
            created.mount_ns / 1000
        );
        let began = Instant::now();
        let (response, mut streams) = guest.start(ID, process(&["true"]), false).await;
        let started = began.elapsed();
        assert!(response.failure.is_none());
        streams.stdout.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(guest.wait(ID).await.exit_code, 0);
        println!("start {started:?}, ended after {:?}", began.elapsed());
        assert!(0 < created.mount_ns && created.mount_ns <= created.total_ns);
    });
}
