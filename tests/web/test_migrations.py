"""A database of an earlier version is brought to the present one, with what is in it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from heedful.feedback.information import Ranking, outlook

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_models_need_no_further_migration(db: None) -> None:
    call_command("makemigrations", "labelling", check=True, dry_run=True)


@pytest.mark.django_db(transaction=True)
def test_projects_of_the_first_version_keep_their_overlap_and_judgements() -> None:
    executor = MigrationExecutor(connection)
    executor.migrate([("labelling", "0001_initial")])
    old = executor.loader.project_state([("labelling", "0001_initial")]).apps
    project = old.get_model("labelling", "Project").objects.create(name="Old", slug="old", criterion="helpfulness", overlap=5)
    labeler = old.get_model("labelling", "User").objects.create(username="ada", password="!")
    text = project.instructions.create(version=1, text="Rank.")
    said = [{"id": id_, "text": answer} for id_, answer in (("a", "Yes."), ("b", "No."), ("c", "Yes."))]
    judged = project.sets.create(prompt_id="p", prompt={}, completions=said)
    project.sets.create(prompt_id="q", prompt={}, completions=said)
    given = {
        "ranks": {"a": 1, "b": 2, "c": 1},
        "flagged": [],
        "shown_order": ["a", "b", "c"],
        "seconds": 1.0,
        "created_at": NOW,
    }
    judged.judgements.create(labeler=labeler, instructions=text, **given)
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())

    from heedful.web.labelling.assignment import standing
    from heedful.web.labelling.models import Project

    new = Project.objects.get(name="Old")
    assert {(found.prompt_id, found.wanted) for found in new.sets.all()} == {("p", 5), ("q", 5)}
    expected = {"p": outlook("ab", [Ranking(given["ranks"], [])]).information, "q": outlook("ab", []).information}  # type: ignore[arg-type]
    assert {found.prompt_id: found.information for found in new.sets.all()} == pytest.approx(expected)
    assert standing(new).judgements == 1
    assert (new.mode, new.adaptive) == ("rank", False)
