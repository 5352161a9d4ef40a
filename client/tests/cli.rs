//! `dunlin-client` as scripts see it: help, messages and exit codes.

#[test]
fn help_and_messages_are_as_recorded() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}
