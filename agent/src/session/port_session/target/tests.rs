use serde_json::json;

use super::*;
use crate::config::ForwardConfig;

fn target(properties: &Value, config: &ForwardConfig) -> Result<Target, TargetError> {
    Target::new(&texts(properties), ForwardPolicy::new(config).unwrap())
}

async fn resolved(host: &str, config: &ForwardConfig) -> Result<Vec<SocketAddr>, DialError> {
    let target = target(&json!({"portNumber": "80", "host": host}), config).unwrap();
    target.addresses().await
}

#[test]
fn a_port_is_a_number_that_can_be_dialled() {
    let config = ForwardConfig::default();
    for good in [json!("8080"), json!(" 22 "), json!(65535)] {
        assert!(target(&json!({"portNumber": good}), &config).is_ok(), "{good}");
    }
    for bad in [
        json!(""),
        json!(null),
        json!("0"),
        json!("65536"),
        json!("ssh"),
        json!("-1"),
    ] {
        let error = target(&json!({"portNumber": bad}), &config).unwrap_err();
        assert!(error.to_string().contains("portNumber"), "{error}");
    }
    assert!(target(&json!({}), &config).is_err());
    assert!(target(&json!({"portNumber": "1", "host": "x".repeat(256)}), &config).is_err());
    let both = json!({"PortNumber": "1", "type": "LocalPortForwarding"});
    assert!(target(&both, &config).unwrap().is_local_forward);
    assert!(
        !target(&json!({"portNumber": "1"}), &config)
            .unwrap()
            .is_local_forward
    );
}

#[tokio::test]
async fn every_spelling_of_a_metadata_address_is_forbidden() {
    for host in [
        "169.254.169.254",
        "169.254.169.254.",
        " 169.254.169.254 ",
        "[::ffff:169.254.169.254]",
        "::ffff:a9fe:a9fe",
        "::a9fe:a9fe",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "2852039166.",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "fd00:ec2::254",
        "fe80::1%1",
        "168.63.129.16",
    ] {
        let error = resolved(host, &ForwardConfig::default()).await.unwrap_err();
        assert!(matches!(error, DialError::Forbidden(_)), "{host}: {error}");
        let text = error.to_string();
        assert!(
            text.starts_with("Forwarding to IP address ") && text.ends_with(" is forbidden."),
            "{text}"
        );
    }
}

#[tokio::test]
async fn other_hosts_are_reached_as_the_owner_allows() {
    let open = ForwardConfig::default();
    let closed = ForwardConfig {
        remote: false,
        ..ForwardConfig::default()
    };
    let expected: Vec<SocketAddr> = vec!["192.0.2.1:80".parse().unwrap()];
    assert_eq!(resolved("192.0.2.1", &open).await.unwrap(), expected);
    assert!(resolved("192.0.2.1", &closed).await.is_err());
    for host in ["", "127.0.0.1", "0", "localhost", "::1"] {
        assert!(!resolved(host, &closed).await.unwrap().is_empty(), "{host}");
    }
    let no_v6 = ForwardConfig {
        deny: vec!["::1".to_owned()],
        ..ForwardConfig::default()
    };
    let expected: Vec<SocketAddr> = vec!["127.0.0.1:80".parse().unwrap()];
    assert_eq!(resolved("", &no_v6).await.unwrap(), expected);
}

#[test]
fn clients_get_texts() {
    let properties = json!({"portNumber": 22, "type": "LocalPortForwarding", "host": null});
    let expected = json!({"portNumber": "22", "type": "LocalPortForwarding", "host": ""});
    assert_eq!(Value::Object(texts(&properties)), expected);
    assert!(texts(&Value::Null).is_empty());
}
