use super::*;

fn report(isolation: Isolation, obstacles: &[&str]) -> PlatformReport {
    PlatformReport {
        isolation,
        obstacles: obstacles.iter().map(|o| (*o).to_owned()).collect(),
        remedies: obstacles.iter().map(|o| format!("end '{o}'")).collect(),
        notes: Vec::new(),
    }
}

#[test]
fn one_platform_that_works_makes_the_others_a_warning() {
    let (kvm, user) = (
        report(Isolation::Kvm, &["no /dev/kvm"]),
        report(Isolation::UserMode, &[]),
    );
    let checks = platforms(&[kvm.clone(), user]);
    assert_eq!(
        (checks[0].status, checks[1].status),
        (CheckStatus::Warn, CheckStatus::Ok)
    );
    assert_eq!(checks[0].detail, "no /dev/kvm");
    assert_eq!(
        checks[0].remedy,
        "not needed, user-mode is used; for KVM: end 'no /dev/kvm'"
    );
    let none = platforms(&[kvm, report(Isolation::UserMode, &["no kernel"])]);
    assert!(none.iter().all(|check| check.status == CheckStatus::Fail));
    assert_eq!(none[0].remedy, "end 'no /dev/kvm'");
}

#[test]
fn each_switch_against_user_namespaces_is_named_with_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(user_namespaces(dir.path()).status, CheckStatus::Ok);
    for (path, value) in [
        ("user/max_user_namespaces", "0\n"),
        ("kernel/unprivileged_userns_clone", "0\n"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, value).unwrap();
        let check = user_namespaces(dir.path());
        assert_eq!(check.status, CheckStatus::Warn);
        assert!(
            check.remedy.contains(path.split('/').next_back().unwrap()),
            "{check:?}"
        );
    }
}

#[test]
fn only_the_strictest_ptrace_scope_is_fatal_and_only_where_user_mode_is_needed() {
    let of = |value, forbidden| ptrace_scope(value, forbidden).status;
    assert_eq!(of(None, CheckStatus::Fail), CheckStatus::Ok);
    assert_eq!(of(Some("1\n"), CheckStatus::Fail), CheckStatus::Ok);
    assert_eq!(of(Some("3\n"), CheckStatus::Fail), CheckStatus::Fail);
    assert_eq!(of(Some("3\n"), CheckStatus::Warn), CheckStatus::Warn);
}

#[test]
fn a_state_directory_must_be_there_and_ours_alone() {
    let dir = tempfile::tempdir().unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    let check = |root: &Path, uid| state_directory(root, uid).status;
    assert_eq!(check(&dir.path().join("not/yet"), uid), CheckStatus::Ok);
    fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(check(&dir.path().join("file/root"), uid), CheckStatus::Fail);
    fs::remove_file(dir.path().join("file")).unwrap();
    assert_eq!(check(dir.path(), uid), CheckStatus::Ok);
    assert_eq!(check(dir.path(), uid + 1), CheckStatus::Warn);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(check(dir.path(), uid), CheckStatus::Warn);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "the trial leaves nothing"
    );
}

#[test]
fn a_missing_tool_names_its_package() {
    let check = tool(
        "no-such-tool",
        "package",
        CheckStatus::Fail,
        "nothing works",
    );
    assert_eq!(
        (check.status, check.remedy.as_str()),
        (CheckStatus::Fail, "apt-get install package")
    );
    assert_eq!(
        tool("sh", "dash", CheckStatus::Fail, "").status,
        CheckStatus::Ok
    );
}
