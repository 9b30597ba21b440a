//! The house rules, as tests: who may import whom, what every file must have, what no file may hold.
//! The list of exceptions of each rule starts empty and may only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use mezzo_tests::source::{CRATES, SourceFile, rust_files, workspace};

/// Lines that no file may exceed, tests included.
const LINES_MAX: usize = 600;

/// Folders whose code decides and encodes, and touches nothing: no runtime, no files, no sockets, no clock, no chance.
const PURE: [&str; 4] = ["protocol/src/", "storage/src/format/", "broker/src/core/", "client/src/core/"];
const BANNED_IN_PURE: [&str; 16] = [
    "tokio::",
    "async fn",
    ".await",
    "std::fs",
    "fs::File",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "rand::",
    "tracing::",
];

/// One edge that must not be there: files below `from` (but not below `except`) must not name any of `words`.
struct Edge {
    from: &'static str,
    except: &'static [&'static str],
    words: &'static [&'static str],
    why: &'static str,
}

const EDGES: &[Edge] = &[
    Edge {
        from: "storage/src/",
        except: &[],
        words: &["tokio::", "async fn", ".await"],
        why: "storage is synchronous: its caller picks the thread",
    },
    Edge {
        from: "storage/src/",
        except: &["storage/src/file_system/"],
        words: &["std::fs", "rustix::", "memmap2::", "OpenOptions"],
        why: "all file access goes through the file system seam",
    },
    Edge {
        from: "storage/src/",
        except: &["storage/src/file_system/", "storage/src/log/"],
        words: &["crate::log::segment"],
        why: "segments belong to the log",
    },
    Edge {
        from: "broker/src/core/",
        except: &[],
        words: &["mezzo_storage", "crate::service", "crate::frontend", "crate::config", "crate::server"],
        why: "core decides and knows only the protocol's words",
    },
    Edge {
        from: "broker/src/service/",
        except: &[],
        words: &[
            "crate::frontend",
            "crate::server",
            "RequestCode",
            "ResponseCode",
            "RemotingCommand",
            "HeaderView",
            "ExtFields",
            "remoting::header",
            "remoting::frame",
        ],
        why: "services are free of any wire format: a second front-end must be able to call them",
    },
    Edge {
        from: "broker/src/frontend/",
        except: &[],
        words: &["crate::core", "crate::server", "std::fs"],
        why: "front-ends translate; deciding and carrying out happen behind the services",
    },
    Edge {
        from: "broker/src/frontend/",
        except: &[],
        words: &[
            "mezzo_storage::log",
            "mezzo_storage::format",
            "mezzo_storage::file_system",
            "mezzo_storage::Store",
        ],
        why: "front-ends fill a batch and read its results; how the log does it is hidden from them",
    },
    Edge {
        from: "client/src/core/",
        except: &[],
        words: &["crate::net", "crate::producer", "crate::consumer", "crate::admin"],
        why: "the client's core decides; the API around it carries out",
    },
    Edge {
        from: "client/src/",
        except: &[],
        words: &["mezzo_storage", "mezzo_broker"],
        why: "the SDK speaks plain RocketMQ and must work against Apache's broker too",
    },
    Edge {
        from: "bench/src/",
        except: &[],
        words: &["mezzo_storage", "mezzo_broker"],
        why: "the load generator sees what a user sees",
    },
];

/// Crates that must not stand in a crate's `[dependencies]`.
const DEPENDENCIES_BANNED: &[(&str, &[&str])] = &[
    ("protocol", &["tokio", "mezzo-storage", "mezzo-broker", "mezzo-client", "memmap2", "rustix", "tracing"]),
    ("storage", &["tokio", "tokio-util", "mezzo-broker", "mezzo-client"]),
    ("broker", &["memmap2", "rustix"]),
    ("client", &["mezzo-storage", "mezzo-broker", "memmap2", "rustix"]),
    ("bench", &["mezzo-storage", "mezzo-broker"]),
];

/// The one file that may hold `unsafe`.
const UNSAFE_FILE: &str = "storage/src/file_system/real.rs";

fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

fn offences(files: &[SourceFile], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for word in words {
            found.extend(
                file.lines_with(word).into_iter().map(|line| format!("{}:{line}: {word}", file.path)),
            );
        }
    }
    found
}

fn below(prefixes: &[&str], except: &[&str]) -> Vec<SourceFile> {
    let mut files = rust_files();
    files.retain(|file| {
        prefixes.iter().any(|prefix| file.path.starts_with(prefix))
            && !except.iter().any(|prefix| file.path.starts_with(prefix))
    });
    files
}

#[test]
fn every_file_opens_by_saying_what_lives_in_it() {
    let files = rust_files();
    assert!(files.len() > CRATES.len(), "the rules look at no files");
    let silent = |file: &&SourceFile| !file.text.starts_with("//! ");
    let silent: Vec<String> = files.iter().filter(silent).map(|file| file.path.clone()).collect();
    assert_none("the first line must be a `//!` sentence", &silent);
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let length = |file: &SourceFile| file.text.lines().count();
    let files = rust_files();
    let long = files.iter().filter(|file| length(file) > LINES_MAX);
    let long: Vec<String> = long.map(|file| format!("{}: {} lines", file.path, length(file))).collect();
    assert_none("a file has at most 600 lines; split it by what its parts are about", &long);
}

#[test]
fn no_file_is_named_for_nothing() {
    let banned = ["utils", "util", "common", "helpers", "helper", "types", "manager", "misc"];
    let vague = |path: &String| {
        path.trim_end_matches(".rs")
            .split('/')
            .any(|part| banned.contains(&part) || part.ends_with("_manager"))
    };
    let vague: Vec<String> = rust_files().into_iter().map(|file| file.path).filter(vague).collect();
    assert_none("a name must say what is inside", &vague);
}

#[test]
fn unsafe_stands_in_one_file_only() {
    let mut files = rust_files();
    files.retain(|file| file.path != UNSAFE_FILE);
    assert_none("`unsafe` belongs into the real file system", &offences(&files, &["unsafe"]));
}

#[test]
fn pure_folders_touch_nothing() {
    assert_none("pure code gets what it needs as arguments", &offences(&below(&PURE, &[]), &BANNED_IN_PURE));
}

#[test]
fn modules_import_only_what_lies_below_them() {
    for edge in EDGES {
        assert_none(edge.why, &offences(&below(&[edge.from], edge.except), edge.words));
    }
}

#[test]
fn crates_depend_only_on_what_lies_below_them() {
    let mut found = Vec::new();
    for (name, banned) in DEPENDENCIES_BANNED {
        let manifest = fs::read_to_string(workspace().join(name).join("Cargo.toml")).unwrap();
        let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let section = section.split("\n[").next().unwrap_or_default();
        let names = section.lines().filter_map(|line| line.split(['.', '=', ' ']).next());
        found
            .extend(names.filter(|dependency| banned.contains(dependency)).map(|d| format!("{name} -> {d}")));
    }
    assert_none("a crate edge that the architecture forbids", &found);
}

#[test]
fn wall_clocks_are_read_in_clock_files_only() {
    let product = ["protocol/src/", "storage/src/", "broker/src/", "client/src/"];
    let except = ["broker/src/clock.rs", "client/src/clock.rs"];
    assert_none(
        "time comes through the Clock seam",
        &offences(&below(&product, &except), &["SystemTime::now"]),
    );
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["TODO", "FIXME", "HACK", "todo!", "unimplemented!"];
    let mut found = Vec::new();
    for file in rust_files().iter().filter(|file| file.path != "tests/tidy.rs") {
        for (index, line) in file.text.lines().enumerate() {
            found.extend(
                marks
                    .iter()
                    .filter(|mark| line.contains(*mark))
                    .map(|m| format!("{}:{}: {m}", file.path, index + 1)),
            );
        }
    }
    assert_none("what is here is meant to stay; what is missing stands in an issue", &found);
}

#[test]
fn every_file_is_part_of_its_crate() {
    let files = rust_files();
    let mut dead = Vec::new();
    for file in files.iter().filter(|file| file.path.contains("/src/") && !file.path.contains("/src/bin/")) {
        let (folder, name) = file.path.rsplit_once('/').expect("paths hold a crate and a file");
        let stem = name.trim_end_matches(".rs");
        if folder.ends_with("/src") && ["lib", "main"].contains(&stem) {
            continue;
        }
        let (module, parents) = if stem == "mod" {
            let (above, module) = folder.rsplit_once('/').expect("a mod.rs lives in a folder of src");
            (
                module,
                [
                    format!("{above}/mod.rs"),
                    format!("{above}/lib.rs"),
                    format!("{above}/main.rs"),
                    format!("{above}.rs"),
                ],
            )
        } else {
            (
                stem,
                [
                    format!("{folder}/mod.rs"),
                    format!("{folder}/lib.rs"),
                    format!("{folder}/main.rs"),
                    format!("{folder}.rs"),
                ],
            )
        };
        let declared =
            |code: &str| code.lines().any(|line| line.trim_end().ends_with(&format!("mod {module};")));
        if !files.iter().any(|parent| parents.contains(&parent.path) && declared(&parent.code)) {
            dead.push(file.path.clone());
        }
    }
    assert_none("no module declares this file", &dead);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let mut explained = false;
    let mut bare = Vec::new();
    for line in section.lines() {
        if line.starts_with('#') {
            explained = true;
        } else if line.trim().is_empty() {
            explained = false;
        } else if !explained && !line.starts_with("mezzo-") {
            bare.push(line.to_owned());
        }
    }
    assert_none("a dependency needs a comment that says why", &bare);
}

#[test]
fn every_crate_obeys_the_workspace_lints() {
    let lenient = |name: &&&str| {
        let manifest = fs::read_to_string(workspace().join(name).join("Cargo.toml")).unwrap();
        !manifest.contains("[lints]\nworkspace = true")
    };
    let lenient: Vec<String> = CRATES.iter().filter(lenient).map(|name| (*name).to_owned()).collect();
    assert_none("Cargo.toml must say `[lints] workspace = true`", &lenient);
}

#[test]
fn the_page_of_served_requests_is_true() {
    let dispatch = fs::read_to_string(workspace().join("broker/src/frontend/remoting/dispatch.rs")).unwrap();
    let served: BTreeSet<String> = dispatch
        .split("Code::")
        .skip(1)
        .map(|rest| {
            rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_' || c.is_ascii_digit()).collect()
        })
        .filter(|name: &String| {
            !name.is_empty() && name != "REQUEST_CODE_NOT_SUPPORTED" && name != "SYSTEM_ERROR"
        })
        .collect();
    let page = fs::read_to_string(workspace().join("docs/protocol-coverage.md")).unwrap();
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let code = cells.next()?.parse::<i32>().ok()?;
        Some((code, cells.next()?.to_owned()))
    };
    let documented: BTreeMap<i32, String> = page.lines().filter_map(row).collect();
    let names: BTreeSet<String> = documented.values().cloned().collect();
    assert_eq!(names, served, "docs/protocol-coverage.md and dispatch.rs name different requests");
    for (code, name) in documented {
        assert_eq!(mezzo_protocol::remoting::request_code::RequestCode(code).name(), name);
    }
}

/// `<!-- printed from PATH -->` above a block of code promises that the block is that file, which CI runs.
/// `MEZZO_WRITE_DOCS=1 cargo test -p mezzo-tests --test tidy` prints the files anew.
#[test]
fn programs_are_printed_as_they_run() {
    let mut printed = Vec::new();
    for page in ["README.md", "docs/examples/README.md"] {
        let path = workspace().join(page);
        let text = fs::read_to_string(&path).unwrap();
        let mut anew = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            anew.push_str(&format!("{line}\n"));
            let marker = line.strip_prefix("<!-- printed from ").and_then(|rest| rest.strip_suffix(" -->"));
            let Some(program) = marker else { continue };
            let fence = lines.next().unwrap_or_default();
            assert!(fence.starts_with("```"), "{page}: no block of code follows the marker of {program}");
            lines.by_ref().take_while(|line| *line != "```").for_each(drop);
            let code = fs::read_to_string(workspace().join(program));
            let code = code.unwrap_or_else(|error| panic!("{page} prints {program}: {error}"));
            anew.push_str(&format!("{fence}\n{}\n```\n", code.trim_end()));
            printed.push(program.rsplit('.').next().unwrap_or_default().to_owned());
        }
        if std::env::var_os("MEZZO_WRITE_DOCS").is_some() {
            fs::write(&path, &anew).unwrap();
        } else {
            assert!(
                text == anew,
                "{page} prints another program than runs; MEZZO_WRITE_DOCS=1 prints it anew"
            );
        }
    }
    for language in ["rs", "py", "mjs"] {
        assert!(printed.iter().any(|ending| ending == language), "README.md has no program in {language}");
    }
}

/// What `mezzo config` prints, as a page. `MEZZO_WRITE_DOCS=1 cargo test -p mezzo-tests --test tidy` writes it anew.
#[test]
fn the_page_of_settings_is_what_the_program_prints() {
    let settings = mezzo_broker::config::commented_toml(&mezzo_broker::Config::default());
    let page = format!(
        "# Configuration\n\nAll settings with their defaults, as `mezzo config` prints them. Put what you change into a \
         file (`mezzo serve --config mezzo.toml`)\nor on the command line (`--set section.key=value`, repeatable). This page \
         is generated from the code and held against it by a\ntest.\n\n```toml\n{settings}```\n"
    );
    let path = workspace().join("docs/configuration.md");
    if std::env::var_os("MEZZO_WRITE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/configuration.md is not what the program prints; MEZZO_WRITE_DOCS=1 writes it anew"
    );
}

/// A promise is worth the test behind it: each one that the page names is there.
#[test]
fn every_test_that_the_page_of_promises_names_exists() {
    let page = fs::read_to_string(workspace().join("docs/durability.md")).expect("the page is there");
    let known: BTreeSet<String> = rust_files()
        .iter()
        .flat_map(|file| file.text.lines())
        .filter_map(|line| line.trim_start().trim_start_matches("async ").strip_prefix("fn "))
        .filter_map(|rest| rest.split('(').next().map(str::to_owned))
        .collect();
    // a name of several words, in full; those shortened with a dot are of the row's first one
    let is_test = |word: &&str| {
        word.matches('_').count() >= 4 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(named.len() > 20, "the page names few tests: {named:?}");
    let missing: Vec<String> =
        named.iter().filter(|name| !known.contains(**name)).map(|n| (*n).to_owned()).collect();
    assert_none("docs/durability.md names tests that do not exist", &missing);
    let is_path = |word: &&str| ["tests/", "storage/", "broker/"].iter().any(|root| word.starts_with(root));
    let paths = page.split('`').skip(1).step_by(2).filter(is_path);
    let gone: Vec<String> =
        paths.filter(|path| !workspace().join(path).exists()).map(str::to_owned).collect();
    assert_none("docs/durability.md names files that do not exist", &gone);
}

/// A page or a comment that names a setting, `section.key`, names one that there is: an operator relies on it.
#[test]
fn settings_that_are_spoken_of_exist() {
    let mut section = String::new();
    let mut settings = BTreeSet::new();
    for line in mezzo_broker::config::commented_toml(&mezzo_broker::Config::default()).lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            settings.insert(format!("{section}.{key}"));
        }
    }
    let sections: BTreeSet<&str> =
        settings.iter().filter_map(|name| name.split_once('.')).map(|(section, _)| section).collect();
    let mut wrong = Vec::new();
    for (path, text) in pages_and_comments() {
        for word in text.split('`').skip(1).step_by(2) {
            let Some((section, key)) = word.split_once('.') else { continue };
            let is_name = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let is_file = ["rs", "md", "toml", "mjs", "py", "sh", "db"].contains(&key);
            if is_name && !is_file && sections.contains(section) && !settings.contains(word) {
                wrong.push(format!("{path}: {word}"));
            }
        }
    }
    assert_none("there is no such setting", &wrong);
}

/// The pages of the project, and the comments of its code line by line.
fn pages_and_comments() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/examples", "docs/decisions"] {
        for entry in
            fs::read_dir(workspace().join(folder)).expect("the folder is part of the project").flatten()
        {
            let path = entry.path();
            // the history of the project speaks of what was
            let is_page =
                path.extension().is_some_and(|ending| ending == "md") && !path.ends_with("CHANGELOG.md");
            if is_page {
                for line in fs::read_to_string(&path).expect("a page is text").lines() {
                    found.push((path.display().to_string(), line.to_owned()));
                }
            }
        }
    }
    for file in rust_files() {
        for line in file.text.lines().filter(|line| line.trim_start().starts_with("//")) {
            found.push((file.path.clone(), line.to_owned()));
        }
    }
    found
}

/// What `/metrics` tells, as a table between two marks. `MEZZO_WRITE_DOCS=1 cargo test -p mezzo-tests --test tidy` writes
/// it anew.
#[test]
fn the_page_of_metrics_is_what_the_program_tells() {
    const MARK: &str = "<!-- made from the code -->\n";
    let path = workspace().join("docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let parts: Vec<&str> = page.split(MARK).collect();
    let [before, _, after] = parts.as_slice() else {
        panic!("docs/metrics.md has its table between two marks")
    };
    let table = mezzo_broker::metrics::documentation();
    let expected = format!("{before}{MARK}{table}{MARK}{after}");
    if std::env::var_os("MEZZO_WRITE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written == expected,
        "docs/metrics.md is not what /metrics tells; MEZZO_WRITE_DOCS=1 writes it anew"
    );
}
