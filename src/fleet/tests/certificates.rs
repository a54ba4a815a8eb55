//! Nodes that show each other certificates: of the fleet's authority in both directions, under whatever name.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::rig::*;
use crate::config::Config;
use crate::domain::outcome::Status;
use crate::fleet::FleetTls;
use crate::ports::executor::ExecuteError;

/// The configuration of a node with a certificate of an authority of its own making, in `folder`.
fn signed(config: &Config, folder: &Path) -> Config {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let node = CertificateParams::new(vec!["some.node.example".to_owned()]).unwrap();
    let certificate = node.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap().pem();
    let mut config = config.clone();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name).to_str().unwrap().to_owned()
    };
    config.fleet.ca_file = write("ca.pem", &ca);
    config.tls.certificate = write("node.pem", &certificate);
    config.tls.key = write("node.key", &key.serialize_pem());
    config
}

#[tokio::test]
async fn nodes_call_each_other_by_certificates_of_the_fleet_and_no_others() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rig = Rig::new();
    let (config, stranger) = (signed(&rig.config, ours.path()), signed(&rig.config, theirs.path()));
    let node = rig.node_with(&config).await;
    let f = rig.function("f");
    let (fleet, _) = rig.fleet_of(&config, 1).await;
    for _ in 0..3 {
        let outcome = run(&fleet, &f, "echo").await.unwrap();
        assert_eq!((outcome.status, outcome.place.unwrap().worker), (Status::Success, node.id));
    }
    for other in [&stranger, &rig.config] {
        let (fleet, _) = rig.fleet_of(other, 1).await;
        let refused = run(&fleet, &f, "echo").await.unwrap_err();
        assert!(matches!(refused, ExecuteError::Unreachable(_)), "{refused:?}");
    }
}

#[test]
fn files_that_are_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = signed(&Config::default(), folder.path());
    std::fs::write(&config.fleet.ca_file, "nothing").unwrap();
    let error = FleetTls::open(&config).err().unwrap().to_string();
    assert!(error.contains("fleet.ca_file"), "{error}");
    config.fleet.ca_file = "/nowhere/ca.pem".to_owned();
    let error = FleetTls::open(&config).err().unwrap().to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}
