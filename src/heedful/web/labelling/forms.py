"""What people type in, checked."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.core.files.uploadedfile import UploadedFile

from heedful.data.formats import read_completions, read_prompts
from heedful.errors import HeedfulError
from heedful.records import Judgement, read_jsonl
from heedful.web.labelling.files import Task, create_project
from heedful.web.labelling.models import Mode, Project, User

MOST_NAME = 60


class JoinForm(UserCreationForm):  # type: ignore[type-arg]
    """A name and a password."""

    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username",)
        widgets: ClassVar = {"username": forms.TextInput(attrs={"autocomplete": "username"})}

    def clean_username(self) -> str:
        name: str = self.cleaned_data["username"]
        if len(name) > MOST_NAME:  # a character may have become several when it was normalised
            raise forms.ValidationError(f"At most {MOST_NAME} characters.")
        return name


class ProfileForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = User
        fields: ClassVar[list[str]] = ["country", "language", "age_band"]


class InstructionsForm(forms.Form):
    version = forms.IntegerField(widget=forms.HiddenInput)
    text = forms.CharField(widget=forms.Textarea(attrs={"rows": 24}), label="Instructions, in Markdown", strip=False)


class HandoutsForm(forms.ModelForm):  # type: ignore[type-arg]
    """How a project hands its sets out."""

    class Meta:
        model = Project
        fields: ClassVar[list[str]] = [
            "overlap",
            "adaptive",
            "lease_minutes",
            "random_percent",
            "gold_percent",
            "repeat_percent",
        ]

    overlap = forms.IntegerField(min_value=1, max_value=50, help_text="Labelers for each set; where adaptive, the most.")
    lease_minutes = forms.IntegerField(min_value=1, max_value=24 * 60, help_text="How long a set is kept for who opened it.")

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or {}
        shares = [found.get(f"{name}_percent") or 0 for name in ("random", "gold", "repeat")]
        if sum(shares) > 100:
            raise forms.ValidationError(f"The three shares add up to {sum(shares)} percent; they should stay within 100.")
        return found


class ProjectForm(forms.Form):
    """A new project from files."""

    name = forms.CharField(max_length=100)
    criterion = forms.CharField(max_length=200, initial="helpfulness", help_text="What makes an answer better.")
    mode = forms.ChoiceField(choices=Mode.choices, initial=Mode.RANK, label="Task")
    overlap = forms.IntegerField(min_value=1, max_value=50, initial=3, help_text="Labelers for each set.")
    adaptive = forms.BooleanField(
        required=False, help_text="Begin with two labelers a set and add more, up to the overlap, until it is clear."
    )
    prompts = forms.FileField(help_text="prompts.jsonl, as 'heedful sample' reads it.")
    completions = forms.FileField(help_text="completions.jsonl, as 'heedful sample' writes it; several a prompt.")
    against = forms.FileField(required=False, help_text="For A or B: completions of the other model.")
    gold = forms.FileField(required=False, help_text="judgements.jsonl with rankings known to be right, to check labelers by.")

    def create(self, author: User) -> Project | None:
        """The project; None with an error in the form where the files do not do."""
        data = self.cleaned_data
        try:
            return create_project(
                data["name"],
                _read(data["prompts"], read_prompts),
                _read(data["completions"], read_completions),
                Task(data["criterion"], data["mode"], data["overlap"], data["adaptive"]),
                against=_read(data["against"], read_completions) if data["against"] else None,
                gold=_read(data["gold"], lambda path: read_jsonl(path, Judgement)) if data["gold"] else (),
                author=author,
            )
        except HeedfulError as error:
            self.add_error(None, str(error))
            return None


def _read(upload: UploadedFile[bytes], reader: Any) -> Any:
    """Through a file, for that is what the readers read; messages name it as the person does."""
    name = Path(upload.name or "file").name
    with NamedTemporaryFile(suffix=".jsonl") as file:
        for chunk in upload.chunks():
            file.write(chunk)
        file.flush()
        try:
            return reader(Path(file.name))
        except HeedfulError as error:
            raise HeedfulError(str(error).replace(file.name, name)) from None
