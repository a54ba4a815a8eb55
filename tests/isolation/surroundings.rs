//! What `isolation = "auto"` makes of places that refuse something.

use serde_json::json;

use crate::support::daemon::{Builder, Daemon};
use crate::support::surroundings::Surroundings;

const WARNING: &str = "ISOLATION IS WEAKER";
const SOURCE: &str = "import os\ndef handler(event, context):\n    return sorted(os.listdir('/var/task'))\n";

/// Each new sandbox is made while the code of the others is in place.
async fn call_several(daemon: &Daemon) {
    for name in ["a", "b", "c", "d"] {
        daemon.deploy_python(name, SOURCE).await;
        for called in ["a", name] {
            assert_eq!(daemon.result(called, &json!({})).await, json!(["main.py"]), "{called} after {name}");
        }
    }
}

#[tokio::test]
async fn in_a_chroot_isolation_is_whole() {
    let daemon = Builder::default().inside(Surroundings::Chroot).start().await;
    call_several(&daemon).await;
    assert!(!daemon.log().contains(WARNING), "{}", daemon.log());
}

/// Code vanished from all sandboxes whenever another was made.
#[tokio::test]
async fn without_user_namespaces_a_warning_says_so_and_functions_keep_their_code() {
    let daemon = Builder::default().inside(Surroundings::NoUserNamespaces).start().await;
    call_several(&daemon).await;
    let log = daemon.log();
    assert!(log.contains(WARNING) && log.contains("no user namespaces") && log.contains("faasd doctor"), "{log}");
}
