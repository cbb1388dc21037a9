//! How Open OnDemand starts a websockify (U2): in the background of a shell, with its output in a file. For five
//! seconds it looks in that file for the line "proxying from", for as long as the process lives.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::upstream;
use crate::support::{WEBSOCKIFY, echo_service, free_port, needs};

/// What Open OnDemand does, in this test's own words. The process is ended here as soon as it has been seen to serve.
const WAIT: &str = r#"
"$PROGRAM" "$1" --heartbeat=30 "localhost:$2" >websockify.log 2>&1 &
process=$!
for second in 0 1 2 3 4 5; do
    if grep -q -i "proxying from :$1" websockify.log; then
        echo started
        kill $process
        wait $process
        exit
    fi
    if ! ps -p $process >/dev/null; then
        echo failed
        exit
    fi
    sleep 1
done
echo late
kill $process
"#;

fn wait(directory: &TempDir, port: u16, target: u16) -> Output {
    let program = upstream().unwrap_or(Path::new(WEBSOCKIFY));
    let mut shell = Command::new("sh");
    shell.args(["-c", WAIT, "sh", &port.to_string(), &target.to_string()]);
    shell.env("PROGRAM", program).current_dir(directory).output().unwrap()
}

#[test]
fn u2_open_on_demand_sees_that_it_has_started_or_why_not() {
    if !needs(&["sh", "ps", "grep"]) {
        return;
    }
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let target = service.address.port();
    let output = wait(&directory, free_port(), target);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "started\n");
    // A port that is taken is another job's, and Open OnDemand tries another port then.
    let output = wait(&directory, target, target);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "failed\n");
    let log = fs::read_to_string(directory.path().join("websockify.log")).unwrap();
    assert!(log.to_lowercase().contains("address already in use"), "{log}");
}
