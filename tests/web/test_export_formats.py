"""A project's judgements in other tools' formats: what comes back is what the server holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from labelled_project import COMPLETIONS, PROMPTS
from labelling import label_all
from typer.testing import CliRunner

from heedful.cli.app import app
from heedful.data import interchange
from heedful.errors import DataError
from heedful.records import Judgement
from heedful.web.labelling import files
from heedful.web.labelling.models import AuditEntry, Project, User


def test_a_projects_sets_and_judgements_come_back(project: Project, labelers: list[User], tmp_path: Path) -> None:
    for labeler in labelers[:3]:
        label_all(project, labeler)
    judgements = list(files.judgements_of(project))
    assert len(judgements) == 12
    prompts, completions = files.sets_of(project)
    assert (prompts, completions) == (PROMPTS, COMPLETIONS)
    sets = interchange.Sets(prompts, completions, judgements)
    for form in interchange.FORMATS:
        interchange.write(form, tmp_path / form, sets)
        found, report = interchange.read(form, tmp_path / form)
        assert report.left_out == {}, form
        assert [(c.id, c.text) for c in found.completions] == [(c.id, c.text) for c in completions], form

        def known(one: Judgement) -> tuple[object, ...]:
            return (one.prompt_id, one.labeler, one.created_at, one.note, one.seconds, sorted(one.ranks.items()))

        assert sorted(map(known, found.judgements)) == sorted(map(known, judgements)), form
    whole, _ = interchange.read("argilla", tmp_path / "argilla")
    assert {one.id: one for one in whole.judgements} == {one.id: one for one in judgements}


def test_a_project_of_votes_has_no_rankings_to_give(project: Project) -> None:
    project.mode = "thumbs"
    with pytest.raises(DataError, match="'My house' gathers votes and no rankings"):
        files.sets_of(project)


def test_the_command_writes_the_format_asked_for(
    project: Project, labelers: list[User], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_all(project, labelers[0])
    monkeypatch.setattr("heedful.web.home.configure", lambda *_, **__: None)  # the test's database is there already
    words = ["label", "export", "--project", "My house", "--output", str(tmp_path / "house.json")]
    done = CliRunner().invoke(app, [*words, "--format", "label-studio"])
    assert done.exit_code == 0, done.output
    assert done.output == f"4 judgements for {tmp_path / 'house.json'}\n"
    assert (tmp_path / "house.json.interface.xml").exists()
    assert len(interchange.read("label-studio", tmp_path / "house.json")[0].judgements) == 4
    table = json.loads(CliRunner().invoke(app, [*words, "--format", "csv", "--json"]).output)
    assert table["judgements"] == 4
    assert "id of judgements, for which the table has no column" in table["left_out"]
    assert AuditEntry.objects.filter(action="exported 4 judgements").count() == 2
    unknown = CliRunner().invoke(app, [*words, "--format", "xml"])
    assert unknown.exit_code == 2
    assert "records, label-studio, argilla, csv" in " ".join(unknown.output.split())
