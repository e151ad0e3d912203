from django.apps import AppConfig


class LabellingConfig(AppConfig):
    name = "heedful.web.labelling"
    label = "labelling"
