//! What manifests call the systems that packages are for: names of the ohai kind (documents.md §2.4).

/// The name in manifests of a system with this `NAME` in os-release; an unknown one is its first word in lower case.
pub fn platform_name(os_name: &str) -> String {
    const KNOWN: [(&str, &str); 16] = [
        ("AlmaLinux", "almalinux"),
        ("Alpine", "alpine"),
        ("Amazon Linux", "amazon"),
        ("Arch Linux", "arch"),
        ("Bottlerocket", "bottlerocket"),
        ("CentOS", "centos"),
        ("Debian", "debian"),
        ("Fedora", "fedora"),
        ("Oracle", "oracle"),
        ("Raspbian", "raspbian"),
        ("Red Hat", "redhat"),
        ("Rocky", "rocky"),
        ("SLES", "suse"),
        ("SUSE", "suse"),
        ("Ubuntu", "ubuntu"),
        ("openSUSE", "opensuse"),
    ];
    let known = KNOWN.iter().find(|(start, _)| os_name.starts_with(start));
    match known {
        Some((_, name)) => (*name).to_owned(),
        None => os_name
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase(),
    }
}

/// The family of a system, as scripts of packages ask for it: systems of one family install software the same way.
pub fn platform_family(name: &str) -> &str {
    match name {
        "debian" | "raspbian" | "ubuntu" => "debian",
        "almalinux" | "centos" | "oracle" | "redhat" | "rocky" => "rhel",
        "opensuse" | "suse" => "suse",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_have_the_names_of_manifests() {
        let table = [
            ("Ubuntu", "ubuntu", "debian"),
            ("Debian GNU/Linux", "debian", "debian"),
            ("Red Hat Enterprise Linux", "redhat", "rhel"),
            ("Amazon Linux", "amazon", "amazon"),
            ("Oracle Linux Server", "oracle", "rhel"),
            ("openSUSE Leap", "opensuse", "suse"),
            ("SLES", "suse", "suse"),
            ("Void Linux", "void", "void"),
            ("", "", ""),
        ];
        for (os_name, name, family) in table {
            assert_eq!(platform_name(os_name), name);
            assert_eq!(platform_family(name), family);
        }
    }
}
