{{/* Names, labels and selectors. Nothing in a selector may ever change: Kubernetes refuses it. */}}

{{- define "velro.chartName" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* In front of every object's name, so that releases of one namespace stay apart. What is too long keeps a hash of the
     whole: two long names with the same beginning must not meet. */}}
{{- define "velro.fullname" -}}
{{- $name := include "velro.chartName" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full = .Values.fullnameOverride | default $full -}}
{{- if gt (len $full) 45 -}}
{{- $full = printf "%s-%s" ($full | trunc 36 | trimSuffix "-") ($full | sha256sum | trunc 8) -}}
{{- end -}}
{{- $full | trimSuffix "-" -}}
{{- end -}}

{{- define "velro.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "velro.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* Of (dict "root" $ "component" "api"): what a selector may name. */}}
{{- define "velro.selectorLabels" -}}
app.kubernetes.io/name: {{ include "velro.chartName" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. Pods do not get them: a new version of the chart alone must not restart them. */}}
{{- define "velro.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "velro.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{/* Name and labels of an object: (dict "root" $ "component" "api" "suffix" "-api"). */}}
{{- define "velro.metadata" -}}
name: {{ include "velro.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "velro.labels" . | nindent 2 }}
{{- end -}}

{{- define "velro.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The roles that run as pods of their own, as a list in JSON: {"roles": [...]}. */}}
{{- define "velro.roles" -}}
{{- dict "roles" (eq .Values.mode "split" | ternary (list "api" "worker") (list "all")) | toJson -}}
{{- end -}}

{{/* The role that serves the API. */}}
{{- define "velro.apiRole" -}}
{{- eq .Values.mode "split" | ternary "api" "all" -}}
{{- end -}}

{{- define "velro.publicUrl" -}}
{{- if .Values.publicUrl -}}
{{- .Values.publicUrl -}}
{{- else if .Values.ingress.enabled -}}
{{- printf "%s://%s" (ternary "https" "http" (ne .Values.ingress.tlsSecretName "")) (first .Values.ingress.hosts) -}}
{{- end -}}
{{- end -}}

{{/* What people type in place of a Secret's name. */}}
{{- define "velro.secretName" -}}
{{- .Values.secrets.existingSecret | default (include "velro.fullname" .) -}}
{{- end -}}

{{/* "true" when there is a Secret at all: a trial needs none. */}}
{{- define "velro.hasSecret" -}}
{{- if or .Values.secrets.existingSecret .Values.secrets.env -}}true{{- end -}}
{{- end -}}

{{/* "true" when Redis is, or may be, used: what an existing Secret holds is not known here. */}}
{{- define "velro.usesRedis" -}}
{{- if and (ne .Values.mode "embedded") (or .Values.redis.enabled .Values.secrets.existingSecret .Values.secrets.env.REDIS_URL) -}}true{{- end -}}
{{- end -}}

{{/* How the schema gets there: "" (mode embedded, or by hand), "init" or "hook". The bundled PostgreSQL is not there yet when
     the hook of an install runs, and waiting for it would wait for ever: its pods migrate before they start. */}}
{{- define "velro.migrationMethod" -}}
{{- if and .Values.migration.enabled (ne .Values.mode "embedded") -}}
{{- ternary "init" "hook" .Values.postgresql.enabled -}}
{{- end -}}
{{- end -}}

{{- define "velro.dataClaim" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-%s" (include "velro.fullname" .) (eq .Values.mode "embedded" | ternary "data" "outputs")) -}}
{{- end -}}

{{- define "velro.accessMode" -}}
{{- .Values.persistence.accessMode | default (eq .Values.mode "embedded" | ternary "ReadWriteOnce" "ReadWriteMany") -}}
{{- end -}}

{{/* A claim that stays when the release goes: (dict "root" $ "component" "" "suffix" "" "accessMode" "" "storageClass" ""
     "size" "" "annotations" (dict)). */}}
{{- define "velro.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "velro.metadata" . | nindent 2 }}
  annotations:
    helm.sh/resource-policy: keep
    {{- with .annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  accessModes: [{{ .accessMode }}]
  {{- with .storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .size }}
{{- end -}}
