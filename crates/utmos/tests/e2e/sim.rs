//! `utmos sim`, its scenarios and its control API, up to where docks would connect.

use crate::shell::Shell;

#[test]
fn a_scenario_that_does_not_read_is_refused_with_file_line_and_field() {
    let shell = Shell::new();
    for (text, expected) in [
        (
            "[[fault]]\nkind = \"lat\"\n",
            "in scenario.toml: line 2: kind: there is no kind \"lat\"; did you mean late? known are late,",
        ),
        (
            "seed = 1\n[[fault]]\nkind = \"late\"\nms = \"soon\"\n",
            "in scenario.toml: line 4: ms: must be a whole number from 0 to 3600000, not \"soon\"",
        ),
        ("[[fault]\n", "in scenario.toml: line 1: fault: this is no TOML: "),
        (
            "docks = 2\n[[fault]]\nkind = \"never\"\ngateway = \"SIM-DOCK-0003\"\n",
            "in scenario.toml: line 4: gateway: there is no dock SIM-DOCK-0003; did you mean SIM-DOCK-0001?",
        ),
        (
            "docks = 2\nspeeed = 3\n[[fault]]\nkind = \"late\"\n",
            "in scenario.toml: line 2: speeed: there is no key \"speeed\"; did you mean speed? known are seed, speed, model, \
             docks, dock, fault, condition\nin scenario.toml: line 3: ms: must be given with kind late\n",
        ),
    ] {
        shell.write("scenario.toml", text);
        let run = shell.run(["sim", "--scenario", "scenario.toml"]);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{run:?}");
        assert!(run.err.contains(expected), "{expected}\n{}", run.err);
    }
    shell.write("scenario.toml", b"seed = 1\nmodel = \"\xff\"\n");
    let run = shell.run(["sim", "--scenario", "scenario.toml"]);
    let expected = "in scenario.toml: line 2: model: byte 0xff at column 10 is no UTF-8";
    assert!(run.code == 1 && run.err.contains(expected), "{run:?}");
    let run = shell.run(["sim", "--scenario", "missing.toml"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("missing.toml cannot be read"), "{}", run.err);
}

#[test]
fn a_fault_flag_that_does_not_read_is_wrong_usage() {
    let run = Shell::new().run(["sim", "--fault", "kind=missing_field,field=timestmp"]);
    assert_eq!(run.code, 2);
    let expected =
        "field: there is no field \"timestmp\"; did you mean timestamp? known are result,";
    assert!(run.err.contains(expected), "{}", run.err);
    let run = Shell::new().run(["sim", "--fault", "kind=never,gateway=SIM-DOCK-0002"]);
    assert_eq!(run.code, 1);
    let expected =
        "in --fault: gateway: there is no dock SIM-DOCK-0002; did you mean SIM-DOCK-0001?";
    assert!(run.err.contains(expected), "{}", run.err);
}

#[test]
fn a_control_api_that_others_could_reach_is_refused_unless_it_is_meant() {
    let run = Shell::new().run(["sim", "--control", "0.0.0.0:0"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("can be reached from other machines"), "{}", run.err);
    assert!(run.err.contains("--control-anywhere"), "{}", run.err);
}
