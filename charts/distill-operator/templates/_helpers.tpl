{{/* Name of the application, in labels. */}}
{{- define "distill-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What all objects' names begin with. Services and labels hold 63 characters:
52 leave room for the longest ending of a Service's name. */}}
{{- define "distill-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "distill-operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Name of what belongs to the cluster: two releases of one name in two namespaces don't meet. */}}
{{- define "distill-operator.clusterName" -}}
{{- $name := include "distill-operator.fullname" . }}
{{- if eq $name .Release.Namespace }}
{{- $name }}
{{- else }}
{{- printf "%s-%s" .Release.Namespace $name }}
{{- end }}
{{- end }}

{{/* Labels by which the operator's pods are found. They never change, or a Deployment can't be upgraded. */}}
{{- define "distill-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "distill-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of all objects. Ours win over those of the values. */}}
{{- define "distill-operator.labels" -}}
{{- merge (include "distill-operator.ownLabels" . | fromYaml) .Values.commonLabels | toYaml }}
{{- end }}

{{- define "distill-operator.ownLabels" -}}
{{ include "distill-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: distill-operator
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Annotations of all objects, with those of (dict "root" $ "annotations" …) on top. */}}
{{- define "distill-operator.annotations" -}}
{{- with merge (dict) .annotations .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Metadata of an object: (dict "root" $ "name" …), and "labels", "annotations", and "namespace" where it isn't the
release's. "cluster": true for an object that is in no namespace. */}}
{{- define "distill-operator.metadata" -}}
name: {{ .name }}
{{- if not .cluster }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- merge (include "distill-operator.labels" .root | fromYaml) (.labels | default dict) | toYaml | nindent 2 }}
{{- include "distill-operator.annotations" (dict "root" .root "annotations" (.annotations | default dict)) }}
{{- end }}

{{- define "distill-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "distill-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Reference of an image: (dict "root" $ "image" .Values.image). */}}
{{- define "distill-operator.image" -}}
{{- with .root.Values.registry }}{{ trimSuffix "/" . }}/{{ end }}
{{- .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The operator's configuration file. */}}
{{- define "distill-operator.configuration" -}}
runtimeImage: {{ include "distill-operator.image" (dict "root" . "image" .Values.runtimeImage) | quote }}
runtimeImagePullPolicy: {{ .Values.runtimeImage.pullPolicy }}
operatorNamespace: {{ .Release.Namespace }}
operatorLabels:
  {{- include "distill-operator.selectorLabels" . | nindent 2 }}
namespaces: {{ toJson .Values.namespaces }}
pods:
  {{- toYaml .Values.pods | nindent 2 }}
allow:
  {{- toYaml .Values.allow | nindent 2 }}
{{- with .Values.maxRunningJobs }}
maxRunningJobs: {{ . }}
{{- end }}
networkPolicies: {{ .Values.jobNetworkPolicies }}
metricsNamespaces: {{ toJson .Values.metrics.prometheusNamespaces }}
leaderElection:
  enabled: {{ .Values.leaderElection.enabled }}
  name: {{ include "distill-operator.fullname" . }}
  namespace: {{ .Release.Namespace }}
  leaseSeconds: {{ .Values.leaderElection.leaseSeconds }}
  renewSeconds: {{ .Values.leaderElection.renewSeconds }}
workers: {{ .Values.workers }}
progressSeconds: {{ .Values.progressSeconds }}
resyncSeconds: {{ .Values.resyncSeconds }}
metricsPort: 8080
probePort: 8081
logLevel: {{ .Values.log.level }}
logFormat: {{ .Values.log.format }}
{{- end }}
