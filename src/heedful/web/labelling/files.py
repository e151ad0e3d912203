"""Projects from files of prompts and completions, and judgements back into a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from heedful.errors import DataError
from heedful.records import Completion, Judgement, Prompt
from heedful.web.labelling import models
from heedful.web.labelling.audit import COMMAND_LINE, audit
from heedful.web.labelling.wording import INSTRUCTIONS

MOST_ID = 500
MOST = 9  # completions of a set: as many as consensus is exact for, and as one can keep in view


def create_project(
    name: str,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    *,
    criterion: str,
    overlap: int = 3,
    author: models.User | None = None,
) -> models.Project:
    """A project whose sets are the prompts with their completions. Raises DataError."""
    sets = list(_sets(prompts, completions))
    for what, value, most in (("name", name, 100), ("criterion", criterion, 200)):
        if len(value) > most:
            raise DataError(f"the project's {what} has {len(value)} characters; at most {most} fit")
    slug = slugify(name)
    if not slug:
        raise DataError(f"project name {name!r}: give it a letter or digit from a to z, of which its address is made")
    try:
        with transaction.atomic():
            project = models.Project.objects.create(name=name, slug=slug, criterion=criterion, overlap=overlap)
            project.instructions.create(version=1, text=INSTRUCTIONS.format(criterion=criterion), author=author)
            for found in sets:
                found.project = project
            models.CompletionSet.objects.bulk_create(sets)
            if author is not None:
                project.members.add(author)
            audit(author, "created a project", name)
    except IntegrityError:
        raise DataError(f"project {name!r}: there is one of that name; choose another name") from None
    return project


def _sets(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Iterator[models.CompletionSet]:
    asked = {prompt.id for prompt in prompts}
    of: dict[str, list[Completion]] = {}
    for completion in completions:
        if completion.prompt_id not in asked:
            raise DataError(
                f"completion {completion.id!r} answers prompt {completion.prompt_id!r}, which is not among the prompts; "
                "take both files from the same run"
            )
        of.setdefault(completion.prompt_id, []).append(completion)
    if not any(_differ(found) for found in of.values()):
        raise DataError("no prompt has two different completions; there is nothing to rank: sample more of each, or warmer")
    for prompt in prompts:
        found = of.get(prompt.id, [])
        if len(found) > MOST:
            raise DataError(
                f"prompt {prompt.id!r} has {len(found)} completions; a set holds up to {MOST}: sample fewer a prompt"
            )
        if len(prompt.id) > MOST_ID:
            raise DataError(f"prompt {prompt.id[:40]!r}... has an id of {len(prompt.id)} characters; at most {MOST_ID} fit")
        for id_, fields in ((prompt.id, prompt.model_dump()), *((answer.id, answer.model_dump()) for answer in found)):
            if _holds_nul(fields):
                raise DataError(f"{id_!r} holds a NUL character, which no database stores as text; take it out")
        if _differ(found):
            yield models.CompletionSet(
                prompt_id=prompt.id,
                prompt=prompt.model_dump(mode="json"),
                completions=[completion.model_dump(mode="json") for completion in found],
            )


def _holds_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_nul, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


def _differ(completions: Sequence[Completion]) -> bool:
    """Whether there is anything to rank: equal texts are shown once."""
    return len({completion.text.strip() for completion in completions}) > 1


def judgements_of(project: models.Project, *, left_out: bool = False) -> Iterator[Judgement]:
    """The records of all judgements, oldest first. left_out: also of those labelers whom an admin has left out."""
    rows = models.Judgement.objects.filter(set__project=project).select_related("set", "labeler", "instructions")
    if not left_out:
        rows = rows.exclude(labeler__in=project.left_out.values("pk"))
    for row in rows.order_by("created_at", "id").iterator(chunk_size=500):
        yield Judgement(
            id=str(row.id),
            prompt_id=row.set.prompt_id,
            labeler=row.labeler.get_username(),
            source="human",
            criterion=project.criterion,
            ranks=row.ranks,
            flagged=tuple(row.flagged),
            shown_order=tuple(row.shown_order),
            seconds=row.seconds,
            created_at=row.created_at.isoformat(timespec="milliseconds"),
            note=row.note or None,
            instructions_version=row.instructions.version,
        )


def export(project: models.Project, who: models.User | None) -> list[Judgement]:
    """The judgements as they leave the server, which is noted: a deletion later tells whose files say too much."""
    name = who.get_username() if who else COMMAND_LINE
    with transaction.atomic():
        project = models.Project.objects.select_for_update().get(pk=project.pk)
        found = list(judgements_of(project))
        models.Export.objects.create(project=project, who=name, num_judgements=len(found))
        audit(who, f"exported {len(found)} judgements", project.name)
    return found


def project_named(name: str) -> models.Project:
    """By name or address. Raises DataError that lists what there is."""
    found = models.Project.objects.filter(name=name).first() or models.Project.objects.filter(slug=name).first()
    if found is None:
        names = ", ".join(models.Project.objects.order_by("name").values_list("name", flat=True)) or "none yet"
        raise DataError(f"project {name!r} does not exist; there are: {names}. 'heedful label import' makes one")
    return found
